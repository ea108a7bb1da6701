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

# Page -> how many images and how many of them are figures.
SHOWN = {'report': (91, 19), 'groups': (71, 7), 'comparison': (5, 5)}


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
    'comparison': report.write_comparison(runs[:3], folder / 'compare.html'),
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
@pytest.mark.parametrize('name', list(SHOWN))
def test_page_shows_everything(browser, pages, name, width):
  show(browser, pages[name], width)
  assert browser.get_log('browser') == []
  images = browser.execute_script(
    'return [...document.images].map(i => i.complete && i.naturalWidth)'
  )
  num_images, num_figures = SHOWN[name]
  assert len(images) == num_images
  assert all(size > 0 for size in images)
  figures = browser.execute_script(
    'return [...document.querySelectorAll("figure > img")].map(i => '
    'Math.min(i.width, i.height))'
  )
  assert len(figures) == num_figures
  assert all(size > 100 for size in figures)
  overflow = browser.execute_script('return document.documentElement.scrollWidth')
  assert overflow <= width


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_text_contrasts_with_its_theme(browser, pages, theme):
  show(browser, pages['report'], 1280, theme)
  page, text, filtered = browser.execute_script(
    'const at = (e, key) => getComputedStyle(e)[key].match(/\\d+/g)'
    '.slice(0, 3).reduce((sum, x) => sum + Number(x), 0) / 3;'
    'return [at(document.querySelector("section"), "backgroundColor"),'
    'at(document.body, "color"),'
    'getComputedStyle(document.querySelector("figure img")).filter]'
  )
  assert (page > 200) == (theme == 'light')
  assert abs(page - text) > 150
  # Figures are black on white, and inverted on a dark page.
  assert ('invert' in filtered) == (theme == 'dark')


def numbers(browser, table, column):
  return browser.execute_script(
    'return [...arguments[0].tBodies[0].rows].map(r => '
    'r.cells[arguments[1]].dataset.sort).map(x => x === "" ? null : Number(x))',
    table, column,
  )  # fmt: skip


def test_click_sorts_and_reverses(browser, pages):
  show(browser, pages['report'], 1280)
  table = browser.find_element('css selector', '#by-age table')
  button = table.find_elements('css selector', 'th button')[1]
  before = numbers(browser, table, 1)
  assert before != sorted(before)
  button.click()
  assert numbers(browser, table, 1) == sorted(before)
  button.click()
  assert numbers(browser, table, 1) == sorted(before)[::-1]
  header = table.find_elements('css selector', 'th')[1]
  assert header.get_attribute('aria-sort') == 'descending'


@pytest.mark.parametrize('width', [pytest.param(390, marks=pytest.mark.nightly), 1280])
def test_every_table_sorts_by_keyboard(browser, pages, width):
  for name in ('report', 'comparison'):
    show(browser, pages[name], width)
    browser.execute_script(
      'document.querySelectorAll("details").forEach(d => d.open = true)'
    )
    tables = browser.find_elements('css selector', 'table')
    assert len(tables) >= (3 if name == 'comparison' else 14)
    for table in tables:
      button = table.find_elements('css selector', 'th button')[-1]
      column = len(table.find_elements('css selector', 'th')) - 1
      text = 'return arguments[0].tBodies[0].rows[0].cells[arguments[1]].dataset'
      is_number = 'sort' in browser.execute_script(text, table, column)
      before = numbers(browser, table, column) if is_number else []
      button.send_keys('\ue007')  # Enter.
      up = table.find_elements('css selector', 'th')[column]
      assert up.get_attribute('aria-sort') == 'ascending'
      if is_number:
        known = sorted(value for value in before if value is not None)
        unknown = [None] * (len(before) - len(known))
        assert numbers(browser, table, column) == known + unknown
        button.send_keys(' ')
        assert numbers(browser, table, column) == known[::-1] + unknown


def test_total_stays_below_the_sorted_layers(browser, pages):
  show(browser, pages['report'], 1280)
  table = browser.find_element('css selector', '#network table')
  table.find_elements('css selector', 'th button')[3].click()
  assert numbers(browser, table, 3) == [64, 129, 896, 4194432]
  last = table.find_elements('css selector', 'tr')[-1]
  assert last.text.split()[:2] == ['total', '4,195,521']


def test_folded_tables_open(browser, pages):
  show(browser, pages['report'], 390)
  fold = browser.find_element('css selector', '#scores details')
  table = fold.find_element('css selector', 'table')
  assert not table.is_displayed()
  fold.find_element('css selector', 'summary').click()
  assert table.is_displayed()
  assert 'Age error (MAE)' in table.text
