"""Figures of the benchmark: scaling and roofline, PNG and SVG each."""

import pathlib

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402, after the choice above.

# Peer -> title, colour.
_PEERS = {'ours': ('ours', '#1b6ca8'), 'torch': ('PyTorch', '#d1603d')}


def _save(figure, folder, name):
  for suffix in ('png', 'svg'):
    path = pathlib.Path(folder, f'{name}.{suffix}')
    figure.savefig(path, dpi=150, bbox_inches='tight')
  plt.close(figure)


def draw_scaling(rows: list[dict], folder: str) -> None:
  """Draws cost per image and memory against batch and image size.

  Args:
    rows: see tables.create_row, with `sweep`, the swept key; those
      that failed have no numbers and are left out.
    folder: gets scaling.png and .svg.
  """
  figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex='col')
  sweeps = (
    ('batch_size', 'batch size'),
    ('image_size', 'image size, pixels'),
  )
  for column, (sweep, title) in enumerate(sweeps):
    for peer, (name, color) in _PEERS.items():
      found = [
        row
        for row in rows
        if row['sweep'] == sweep and row['peer'] == peer and 'ms' in row
      ]
      if not found:
        continue
      sizes = [row[sweep] for row in found]
      times = [row['ms'] for row in found]
      counts = [row['batch_size'] for row in found]

      def per_image(key, times=times, counts=counts):
        pairs = zip(times, counts, strict=True)
        return [time[key] / count for time, count in pairs]

      top, bottom = axes[:, column]
      top.plot(sizes, per_image('median'), 'o-', color=color, label=name)
      top.fill_between(
        sizes, per_image('low'), per_image('high'), color=color, alpha=0.2
      )
      memory = [row['peak_device'] or row['peak_rss'] for row in found]
      bottom.plot(sizes, memory, 'o-', color=color, label=name)
      for axis in (top, bottom):
        axis.set_xscale('log', base=2)
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend()
    axes[0, column].set_ylabel('ms per image')
    axes[1, column].set_ylabel('peak memory, GiB')
    axes[1, column].set_xlabel(title)
    for axis in axes[:, column]:
      axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
  nets = {row['net'] for row in rows}
  figure.suptitle(f'Train step: {", ".join(sorted(nets))}')
  _save(figure, folder, 'scaling')


def draw_roofline(rows: list[dict], peaks: dict, folder: str) -> None:
  """Draws what each net's step achieves under the machine's two limits.

  Args:
    rows: see tables.create_row; of each net and peer the first one is drawn.
      Bytes are known of our steps only, so the peer's stands above or below.
    peaks: `matmul`, FLOP/s, and `memory`, bytes/s.
    folder: gets roofline.png and .svg.
  """
  firsts = {}
  for row in rows:
    firsts.setdefault((row['peer'], row['net']), row)
  intensity = {
    net: row['flops_per_image'] / row['bytes_per_image']
    for (peer, net), row in firsts.items()
    if peer == 'ours' and row.get('bytes_per_image')
  }
  figure, axis = plt.subplots(figsize=(7.5, 5))
  ridge = peaks['matmul'] / peaks['memory']
  roof = [min([*intensity.values(), ridge]) / 4, ridge,
          max([*intensity.values(), ridge]) * 4]  # fmt: skip
  axis.plot(
    roof,
    [min(peaks['matmul'], x * peaks['memory']) / 1e9 for x in roof],
    color='black',
    label=f'{peaks["matmul"] / 1e9:.0f} GFLOP/s of matrix products, '
    f'{peaks["memory"] / 1e9:.1f} GB/s of memory',
  )
  for peer, (name, color) in _PEERS.items():
    nets = [net for net in intensity if (peer, net) in firsts]
    speeds = [1e3 * firsts[peer, net]['tflops'] for net in nets]
    places = [intensity[net] for net in nets]
    if nets:
      axis.plot(places, speeds, 'o', color=color, label=name)
    # Names beside the axes, where those of close points do not overlap.
    order = sorted(zip(speeds, places, nets, strict=True))
    for rank, (y, x, net) in enumerate(order if peer == 'ours' else []):
      axis.annotate(
        net, (x, y), (1.02, (rank + 1) / (len(order) + 1)), size=8,
        textcoords='axes fraction', verticalalignment='center',
        arrowprops={'arrowstyle': '-', 'color': color, 'linewidth': 0.4},
      )  # fmt: skip
  axis.set_xscale('log')
  axis.set_yscale('log')
  axis.set_xlabel('FLOPs per byte that our compiled step reads or writes')
  axis.set_ylabel('GFLOP/s achieved')
  axis.grid(alpha=0.3, which='both')
  axis.legend(loc='lower center', bbox_to_anchor=(0.5, 1), ncols=3)
  _save(figure, folder, 'roofline')
