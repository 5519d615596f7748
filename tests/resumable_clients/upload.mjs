// node upload.mjs ADDRESS TOKEN FILE PARALLEL: sends a file with tus-js-client as it comes, and says what came of it.
import { createReadStream, statSync } from 'node:fs'
import { Upload } from 'tus-js-client'

const [address, token, file, parallel] = process.argv.slice(2)
const many = Number(parallel) > 1
const upload = new Upload(createReadStream(file), {
  endpoint: address,
  headers: { Authorization: `Bearer ${token}` },
  metadata: { filename: 'clip.mp4', detect: 'false' },
  chunkSize: many ? Infinity : 4 * 1024 * 1024,
  uploadSize: many ? null : statSync(file).size,
  parallelUploads: Number(parallel),
  retryDelays: Array(30).fill(50),
  storeFingerprintForResuming: false,
  onError: (error) => {
    console.error(String(error))
    process.exit(1)
  },
  onSuccess: () => console.log(upload.url),
})
upload.start()
