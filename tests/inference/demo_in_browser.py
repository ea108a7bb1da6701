"""Uploads a photo to `agegender demo` in Chromium, with no network but loopback.

unshare -rn python tests/inference/demo_in_browser.py WORKDIR PHOTO FOLDER

Writes page_390.png and page_1280.png into FOLDER and prints, as JSON, what the page
shows and which requests left this machine or failed.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

from selenium import webdriver
from selenium.webdriver.chrome import service
from selenium.webdriver.common import by
from selenium.webdriver.support import wait

FLAGS = (
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--disable-dev-shm-usage',
)  # fmt: skip
PORT = 7894
PHOTO = 'img[alt^="the photo with a box"]'


def open_browser(profile: pathlib.Path) -> webdriver.Chrome:
  options = webdriver.ChromeOptions()
  options.binary_location = shutil.which('chromium') or 'chromium-browser'
  for flag in (*FLAGS, f'--user-data-dir={profile}'):
    options.add_argument(flag)
  options.set_capability('goog:loggingPrefs', {'performance': 'ALL'})
  driver = service.Service(shutil.which('chromedriver'))
  return webdriver.Chrome(options=options, service=driver)


def requests_of(browser) -> dict[str, list[str]]:
  """Returns the addresses that are foreign, and those that failed."""
  urls, failed = {}, []
  for entry in browser.get_log('performance'):
    message = json.loads(entry['message'])['message']
    params = message['params']
    if message['method'] == 'Network.requestWillBeSent':
      urls[params['requestId']] = params['request']['url']
    elif message['method'] == 'Network.loadingFailed' and not params['canceled']:
      failed.append(urls.get(params['requestId'], '?') + ' ' + params['errorText'])
    response = params.get('response', {})
    if message['method'] == 'Network.responseReceived' and response['status'] >= 400:
      failed.append(f'{response["url"]} {response["status"]}')
  here = (f'http://127.0.0.1:{PORT}/', 'data:', 'blob:', 'chrome')
  return {
    'count': len(urls),
    'foreign': [url for url in urls.values() if not url.startswith(here)],
    'failed': failed,
  }


def shoot(browser, path: pathlib.Path, width: int) -> int:
  """Writes a screenshot of the whole page; returns how far it is too wide."""
  for height in (900, None):
    height = height or browser.execute_script('return document.body.scrollHeight')
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {
      'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 500,
    })  # fmt: skip
    time.sleep(1)  # The page is laid out.
  browser.get_screenshot_as_file(str(path))
  return browser.execute_script('return document.body.scrollWidth') - width


def main(workdir: str, photo: str, folder: str) -> None:
  place = pathlib.Path(folder)
  subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=False)
  command = [sys.executable, '-m', 'agegender_jax.main', 'demo', f'--port={PORT}']
  command += [f'--workdir={workdir}'] if workdir else []
  temporary = place / 'tmp'
  temporary.mkdir()
  server = subprocess.Popen(
    command,
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, 'TMPDIR': str(temporary)},
  )
  browser = None
  try:
    lines = iter(server.stdout.readline, '')
    url = next(found[0] for line in lines if (found := re.search(r'http://\S+', line)))
    browser = open_browser(place / 'profile')
    browser.get(url)
    until = wait.WebDriverWait(browser, 120).until
    find = browser.find_elements
    until(lambda _: find(by.By.CSS_SELECTOR, 'input[type=file]'))
    find(by.By.CSS_SELECTOR, 'input[type=file]')[0].send_keys(photo)
    until(lambda _: find(by.By.CSS_SELECTOR, PHOTO))
    until(lambda _: find(by.By.CSS_SELECTOR, 'input[type=radio]'))
    time.sleep(2)  # The plot comes last.
    result = {
      f'too_wide_{width}': shoot(browser, place / f'page_{width}.png', width)
      for width in (390, 1280)
    }
    result |= requests_of(browser)
    result['faces'] = len(find(by.By.CSS_SELECTOR, 'input[type=radio]'))
    result['text'] = find(by.By.TAG_NAME, 'body')[0].text
    result['plots'] = len(find(by.By.CSS_SELECTOR, 'img[src*="data:image"]')) - 1
    uploads = temporary.rglob('agegender_demo_*/**/*')
    result['uploads'] = [str(path) for path in uploads if path.is_file()]
  finally:
    if browser:
      browser.quit()
    server.terminate()
    server.wait(30)
  result['left'] = [path.name for path in temporary.glob('agegender_demo_*')]
  print(json.dumps(result))


if __name__ == '__main__':
  main(*sys.argv[1:])
