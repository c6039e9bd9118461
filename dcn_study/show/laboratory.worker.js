// Computes one network in a thread of its own. Feature maps are channels-last, one image at a time.
let network;

function tensor({ shape, bits, scales, data }) {
  const bytes = Uint8Array.from(atob(data), each => each.charCodeAt(0));
  if (bits === 32) return new Float32Array(bytes.buffer);
  const size = shape.reduce((product, side) => product * side, 1), filters = shape[shape.length - 1];
  const factors = tensor(scales), values = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    let code;
    if (bits === 16) code = bytes[2 * i] | (bytes[2 * i + 1] << 8);
    else { // two numbers of 12 bits in three bytes
      const start = 3 * (i >> 1);
      code = i % 2 ? (bytes[start + 1] >> 4) | (bytes[start + 2] << 4) : bytes[start] | ((bytes[start + 1] & 15) << 8);
    }
    values[i] = (code - 2 ** (bits - 1)) * factors[i % filters];
  }
  return values;
}

// The four pixels around a point, as [place, weight, weight's derivative along y, along x]; those outside count as zero.
function corners(y, x, height, width) {
  const top = Math.floor(y), left = Math.floor(x), down = y - top, right = x - left, found = [];
  for (const [row, v, dv] of [[top, 1 - down, -1], [top + 1, down, 1]])
    for (const [column, h, dh] of [[left, 1 - right, -1], [left + 1, right, 1]])
      if (row >= 0 && row < height && column >= 0 && column < width)
        found.push([row * width + column, v * h, dv * h, v * dh]);
  return found;
}

const before = (size, stride) => Math.max((Math.ceil(size / stride) - 1) * stride + 3 - size, 0) >> 1;

// Where the nine points of a kernel are for an output at (y, x): with offsets (dy, dx) of each, or without.
function points(layer, y, x, offsets) {
  const first = [layer.stride * y - before(layer.height, layer.stride), layer.stride * x - before(layer.width, layer.stride)];
  const start = 18 * (y * layer.columns + x);
  return Array.from({ length: 9 }, (_, tap) => [
    first[0] + Math.floor(tap / 3) + (offsets ? offsets[start + 2 * tap] : 0),
    first[1] + (tap % 3) + (offsets ? offsets[start + 2 * tap + 1] : 0),
  ]);
}

function convolve(layer, features, kernel, bias, filters, offsets) {
  const { height, width, channels, rows, columns, stride } = layer, output = new Float32Array(rows * columns * filters);
  const patch = new Float32Array(9 * channels), used = new Int32Array(9 * channels), sums = new Float32Array(filters);
  const first = [before(height, stride), before(width, stride)];
  for (let y = 0; y < rows; y++) for (let x = 0; x < columns; x++) {
    patch.fill(0);
    if (offsets) points(layer, y, x, offsets).forEach(([row, column], tap) => {
      for (const [place, weight] of corners(row, column, height, width)) if (weight)
        for (let c = 0; c < channels; c++) patch[tap * channels + c] += weight * features[place * channels + c];
    });
    else for (let tap = 0; tap < 9; tap++) {
      const row = stride * y - first[0] + Math.floor(tap / 3), column = stride * x - first[1] + tap % 3;
      const start = (row * width + column) * channels;
      if (row >= 0 && row < height && column >= 0 && column < width) patch.set(features.subarray(start, start + channels), tap * channels);
    }
    let count = 0, i = 0;
    for (let k = 0; k < patch.length; k++) if (patch[k]) used[count++] = k;
    sums.set(bias);
    for (; i + 4 <= count; i += 4) { // four rows of the kernel at a time: sums are read and written a quarter as often
      const a = used[i], b = used[i + 1], c = used[i + 2], d = used[i + 3], va = patch[a], vb = patch[b], vc = patch[c], vd = patch[d];
      for (let f = 0, ka = a * filters, kb = b * filters, kc = c * filters, kd = d * filters; f < filters; f++)
        sums[f] += va * kernel[ka + f] + vb * kernel[kb + f] + vc * kernel[kc + f] + vd * kernel[kd + f];
    }
    for (; i < count; i++) for (let f = 0, k = used[i] * filters; f < filters; f++, k++) sums[f] += patch[used[i]] * kernel[k];
    output.set(sums, (y * columns + x) * filters);
  }
  return output;
}

// The features before and after each layer, the offsets, and the probabilities.
function forward(network, image, useOffsets) {
  let features = image;
  const trace = [];
  for (const layer of network.layers) {
    const moved = useOffsets && layer.offsetKernel;
    const offsets = moved ? convolve(layer, features, layer.offsetKernel, layer.offsetBias, 18, null) : null;
    const sums = convolve(layer, features, layer.kernel, layer.bias, layer.filters, offsets);
    trace.push({ layer, features, offsets, sums });
    features = sums.map((value, i) => Math.max(value, 0) * layer.scale[i % layer.filters] + layer.shift[i % layer.filters]);
  }
  const { filters } = network.layers[network.layers.length - 1], pooled = new Float32Array(filters);
  features.forEach((value, i) => { pooled[i % filters] += value * filters / features.length; });
  const logits = Array.from(network.denseBias, (sum, k) => pooled.reduce((total, value, i) => total + value * network.dense[10 * i + k], sum));
  const most = Math.max(...logits), powers = logits.map(value => Math.exp(value - most));
  const total = powers.reduce((sum, value) => sum + value);
  return { trace, probabilities: powers.map(value => value / total) };
}

// The absolute gradient, with respect to the image, of the sum over channels of one output of a layer: its receptive field.
function field(trace, depth, y, x) {
  let { layer } = trace[depth], gradient = new Map([[y * layer.columns + x, new Float32Array(layer.filters).fill(1)]]);
  for (let number = depth; number >= 0; number--) {
    const { features, offsets } = trace[number], below = new Map();
    ({ layer } = trace[number]);
    const { height, width, channels, filters } = layer;
    const add = (place, channel, value) => {
      if (!below.has(place)) below.set(place, new Float32Array(channels));
      below.get(place)[channel] += value;
    };
    for (const [place, above] of gradient) {
      const row = Math.floor(place / layer.columns), column = place % layer.columns, ofOffsets = new Float32Array(18);
      points(layer, row, column, offsets).forEach((point, tap) => {
        const around = corners(...point, height, width);
        for (let c = 0; c < channels; c++) {
          let value = 0;
          for (let f = 0, k = (tap * channels + c) * filters; f < filters; f++, k++) value += layer.kernel[k] * above[f];
          for (const [pixel, weight, alongY, alongX] of around) {
            if (weight) add(pixel, c, weight * value);
            if (!offsets) continue;
            ofOffsets[2 * tap] += alongY * features[pixel * channels + c] * value;
            ofOffsets[2 * tap + 1] += alongX * features[pixel * channels + c] * value;
          }
        }
      });
      if (offsets) points(layer, row, column, null).forEach(([r, q], tap) => {
        if (r < 0 || r >= height || q < 0 || q >= width) return;
        for (let c = 0; c < channels; c++) {
          let value = 0;
          for (let o = 0; o < 18; o++) value += layer.offsetKernel[(tap * channels + c) * 18 + o] * ofOffsets[o];
          add(r * width + q, c, value);
        }
      });
    }
    if (number > 0) { // through batch normalisation and ReLU of the layer before
      const { layer: earlier, sums } = trace[number - 1];
      for (const [place, values] of below) for (let c = 0; c < channels; c++)
        values[c] *= sums[place * channels + c] > 0 ? earlier.scale[c] : 0;
    }
    gradient = below;
  }
  const shown = new Float32Array(trace[0].layer.height * trace[0].layer.width);
  for (const [place, values] of gradient) shown[place] = Math.abs(values[0]);
  return shown;
}

// The points of the image that one output of a layer samples, followed back from nearest pixel to nearest pixel.
function sampled(trace, depth, y, x) {
  let places = new Map([[`${y},${x}`, 1]]);
  for (let number = depth; number >= 0; number--) {
    const { layer, offsets } = trace[number], nearest = new Map(), exact = new Map();
    for (const [key, paths] of places) for (const [row, column] of points(layer, ...key.split(",").map(Number), offsets)) {
      const rounded = [Math.round(row), Math.round(column)];
      exact.set(`${row},${column}`, (exact.get(`${row},${column}`) ?? 0) + paths);
      if (rounded[0] < 0 || rounded[0] >= layer.height || rounded[1] < 0 || rounded[1] >= layer.width) continue;
      nearest.set(`${rounded}`, (nearest.get(`${rounded}`) ?? 0) + paths);
    }
    if (number === 0) return [...exact].map(([key, paths]) => [...key.split(",").map(Number), paths]);
    places = nearest;
  }
}

self.onmessage = ({ data: { id, load, tensors, numbers, image, offsets, layer, place } }) => {
  if (load) {
    const decoded = key => tensor(tensors[key]);
    const layers = load.layers.map(each => Object.fromEntries(Object.entries(each).map(
      ([key, value]) => [key, numbers.includes(key) || value === null ? value : decoded(value)])));
    network = { layers, dense: decoded(load.dense), denseBias: decoded(load.denseBias) };
    return;
  }
  const start = performance.now(), { trace, probabilities } = forward(network, image, offsets);
  const answer = { id, probabilities, milliseconds: performance.now() - start };
  if (place) {
    const depth = network.layers.findIndex(each => each.name === layer), { rows, columns } = trace[depth].layer;
    const [y, x] = [Math.min(rows - 1, Math.floor(place[0] * rows)), Math.min(columns - 1, Math.floor(place[1] * columns))];
    Object.assign(answer, { field: field(trace, depth, y, x), points: sampled(trace, depth, y, x) });
  }
  self.postMessage(answer);
};
