"""The report in a real browser: headless Chromium, from disk, offline."""

import pathlib
import shutil

import fake_workdir
import pytest

from agegender_jax import report

FLAGS = (
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
  '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
)  # fmt: skip


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
  binary = shutil.which('chromium') or shutil.which('chromium-browser')
  driver = shutil.which('chromedriver')
  if not binary or not driver:
    pytest.skip('no Chromium: apt-get install chromium chromium-driver')
  webdriver = pytest.importorskip('selenium.webdriver')
  from selenium.webdriver.chrome import service

  options = webdriver.ChromeOptions()
  options.binary_location = binary
  for flag in FLAGS:
    options.add_argument(flag)
  profile = tmp_path_factory.mktemp('profile')
  options.add_argument(f'--user-data-dir={profile}')
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  opened = webdriver.Chrome(options=options, service=service.Service(driver))
  opened.execute_cdp_cmd('Network.enable', {})
  opened.execute_cdp_cmd('Network.emulateNetworkConditions', {
    'offline': True, 'latency': 0, 'downloadThroughput': 0,
    'uploadThroughput': 0,
  })  # fmt: skip
  yield opened
  opened.quit()


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
  folder = tmp_path_factory.mktemp('runs')
  runs = [
    fake_workdir.create(folder / 'a run'),
    fake_workdir.create(folder / ('a_run_with_a_long_name_' * 3), seed=1),
    fake_workdir.create(folder / 'groups', years=False, gender=False),
  ]
  return {
    'report': report.write_report(runs[0]),
    'groups': report.write_report(runs[2]),
    'comparison': report.write_comparison(runs, folder / 'compare.html'),
  }


def show(browser, path, width, theme='light'):
  browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {
    'width': width, 'height': 900, 'deviceScaleFactor': 1,
    'mobile': width < 500,
  })  # fmt: skip
  browser.execute_cdp_cmd('Emulation.setEmulatedMedia', {
    'features': [{'name': 'prefers-color-scheme', 'value': theme}]
  })  # fmt: skip
  browser.get(pathlib.Path(path).resolve().as_uri())


@pytest.mark.parametrize('width', [390, 1280])
@pytest.mark.parametrize('name', ['report', 'groups', 'comparison'])
def test_page_shows_everything(browser, pages, name, width):
  show(browser, pages[name], width)
  assert browser.get_log('browser') == []
  images = browser.execute_script(
    'return [...document.images].map(i => i.complete && i.naturalWidth)'
  )
  assert len(images) == (0 if name == 'comparison' else 20)
  assert all(size > 0 for size in images)
  # What is drawn inside counts: an empty svg has a size too.
  figures = browser.execute_script(
    'return [...document.querySelectorAll("figure > svg")].map(s => '
    '[s.getBoundingClientRect(), s.querySelector("g").getBoundingClientRect()]'
    '.map(r => Math.min(r.width, r.height)))'
  )
  assert len(figures) >= 3
  assert all(min(sizes) > 100 for sizes in figures)
  overflow = browser.execute_script(
    'return document.documentElement.scrollWidth'
  )
  assert overflow <= width


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_text_contrasts_with_its_theme(browser, pages, theme):
  show(browser, pages['report'], 1280, theme)
  page, text, tick = browser.execute_script(
    'const at = (e, key) => getComputedStyle(e)[key].match(/\\d+/g)'
    '.slice(0, 3).reduce((sum, x) => sum + Number(x), 0) / 3;'
    'return [at(document.querySelector("section"), "backgroundColor"),'
    'at(document.body, "color"),'
    'at(document.querySelector("figure svg text"), "fill")]'
  )
  assert (page > 200) == (theme == 'light')
  assert abs(page - text) > 150
  assert abs(page - tick) > 100


def test_click_sorts_and_reverses(browser, pages):
  show(browser, pages['report'], 1280)
  table = browser.find_element('css selector', '#by-age table')
  button = table.find_elements('css selector', 'th button')[1]
  column = 'return [...arguments[0].tBodies[0].rows].map(r => Number('
  column += 'r.cells[1].dataset.sort))'
  before = browser.execute_script(column, table)
  assert before != sorted(before)
  button.click()
  assert browser.execute_script(column, table) == sorted(before)
  button.click()
  assert browser.execute_script(column, table) == sorted(before)[::-1]
  header = table.find_elements('css selector', 'th')[1]
  assert header.get_attribute('aria-sort') == 'descending'
