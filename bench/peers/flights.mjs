// Three million flights of the first half of 2001, in the order of time, as VW's text: was it more than 15 minutes late?
//
//   node flights.mjs MODULES OUT      MODULES: a folder with node_modules of hyparquet, hyparquet-compressors,
//                                     vega-datasets (npm; make bench-online installs them in out/peers/node)
import { createWriteStream } from 'node:fs'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { join, resolve } from 'node:path'

const [modules, out] = process.argv.slice(2)
const require = createRequire(join(resolve(modules), 'from.js'))
const load = (name) => import(pathToFileURL(require.resolve(name)))
const { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } =
  await import(pathToFileURL(join(resolve(modules), 'node_modules/hyparquet/src/node.js'))).catch(() => load('hyparquet'))
const { compressors } = await load('hyparquet-compressors')

const file = await asyncBufferFromFile(join(modules, 'node_modules/vega-datasets/data/flights-3m.parquet'))
const metadata = await parquetMetadataAsync(file)
const stream = createWriteStream(out)
let row = 0
for (const group of metadata.row_groups) {
  const end = row + Number(group.num_rows)
  const flights = await parquetReadObjects({ file, metadata, compressors, rowStart: row, rowEnd: end })
  let text = ''
  for (const { date, delay, distance, origin, destination } of flights) {
    const label = delay > 15n ? 1 : -1
    text += `${label} |d w${date.getUTCDay()} |h h${date.getUTCHours()} |o ${origin} |t ${destination} |n km:${Number(distance) / 1000}\n`
  }
  if (!stream.write(text)) await once(stream, 'drain')
  row = end
}
stream.end()
await once(stream, 'finish')
console.log(row)
