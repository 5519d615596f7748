// A page with Uppy and its tus plugin, as somebody's application has it: `send` is given to the window, for the test.
import Uppy from '@uppy/core'
import Tus from '@uppy/tus'

window.send = async (options, file) => {
  const uppy = new Uppy({ allowMultipleUploadBatches: false })
  uppy.use(Tus, { retryDelays: Array(30).fill(50), allowedMetaFields: true, ...options })
  uppy.addFile({ name: file.name, type: file.type, data: file, meta: { filename: file.name, detect: 'false' } })
  const { successful, failed } = await uppy.upload()
  return { addresses: successful.map((one) => one.uploadURL), errors: failed.map((one) => String(one.error)) }
}
