// Predicts with the npm package `@vladmandic/face-api`, for `--mode=score`.
//
// It needs a folder of its own:
//   npm install @vladmandic/face-api@1.7.15 @tensorflow/tfjs@4.22.0 \
//     @tensorflow/tfjs-backend-wasm@4.22.0 jpeg-js@0.4.4
//   NODE_PATH=node_modules node scripts/peers/face_api.js predictions.csv \
//     PATH_TO_UTKFACE face_api.csv
// The image is taken for the face. Its network was trained on UTKFace among others.

const fs = require('fs');
const path = require('path');
const tf = require('@tensorflow/tfjs');
const wasm = require('@tensorflow/tfjs-backend-wasm');
const jpeg = require('jpeg-js');

async function main(namesFile, folder, output) {
  const root = path.dirname(require.resolve('@tensorflow/tfjs-backend-wasm'));
  wasm.setWasmPaths(root + '/');
  await tf.setBackend('wasm');
  await tf.ready();
  const faceapi = require('@vladmandic/face-api/dist/face-api.node-wasm.js');
  const api = path.dirname(require.resolve('@vladmandic/face-api/package.json'));
  await faceapi.nets.ageGenderNet.loadFromDisk(path.join(api, 'model'));
  // The first column of the CSV is `name`; no name of a data set has a comma.
  const lines = fs.readFileSync(namesFile, 'utf8').split(/\r?\n/).slice(1);
  const names = lines.map((line) => line.split(',')[0]).filter(Boolean);
  const rows = ['name,age_pred,gender_prob'];
  const start = process.cpuUsage();  // Others may run meanwhile.
  for (const name of names) {
    const bytes = fs.readFileSync(path.join(folder, name));
    const { width, height, data } = jpeg.decode(bytes, { useTArray: true });
    const image = tf.tidy(() => tf
      .tensor3d(data, [height, width, 4], 'int32')
      .slice([0, 0, 0], [height, width, 3])
      .toFloat());
    const found = await faceapi.predictAgeAndGender(image);
    image.dispose();
    const sure = found.genderProbability;
    const female = found.gender === 'female' ? sure : 1 - sure;
    rows.push(`${name},${found.age.toFixed(2)},${female.toFixed(4)}`);
  }
  const used = process.cpuUsage(start);
  const seconds = (used.user + used.system) / 1e6;
  fs.writeFileSync(output, rows.join('\n') + '\n');
  const speed = (names.length / seconds).toFixed(0);
  console.log(`${names.length} images, ${speed} per CPU second`);
}

main(...process.argv.slice(2));
