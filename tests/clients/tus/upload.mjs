// Sends a file as Supabase's documentation has it, with the unmodified tus-js-client, and goes on with what was sent before. It may be
// killed at any moment and started again.
//
// The environment says what and where: ENDPOINT, TOKEN (a user's, or the secret key) or SIGNATURE (of a signed URL for the upload), FILE,
// BUCKET, OBJECT, CHUNK (bytes), UPSERT, DEFER (the length is said last), PATIENCE (how often it tries again without progress), and MEMORY:
// the file in which it remembers the upload.

import { createReadStream } from "node:fs";
import { PassThrough } from "node:stream";
import { FileUrlStorage, Upload } from "tus-js-client";

const { ENDPOINT, TOKEN, SIGNATURE, FILE, BUCKET, OBJECT, CHUNK, UPSERT, DEFER, PATIENCE, MEMORY } = process.env;

let begun = false;
const file = createReadStream(FILE);
// Of a file it knows the length.
const upload = new Upload(DEFER ? file.pipe(new PassThrough()) : file, {
  endpoint: SIGNATURE ? `${ENDPOINT}/sign` : ENDPOINT,
  headers: {
    ...(TOKEN && { apikey: TOKEN, authorization: `Bearer ${TOKEN}` }),
    ...(SIGNATURE && { "x-signature": SIGNATURE }),
    "x-upsert": UPSERT ?? "false",
  },
  metadata: { bucketName: BUCKET, objectName: OBJECT, contentType: "video/x", cacheControl: "60", metadata: '{"by":"tus"}' },
  chunkSize: Number(CHUNK),
  uploadDataDuringCreation: !DEFER,
  uploadLengthDeferred: Boolean(DEFER),
  urlStorage: new FileUrlStorage(MEMORY),
  removeFingerprintOnSuccess: true,
  // A node that is away for a while is waited for.
  retryDelays: Array(Number(PATIENCE ?? 600)).fill(100),
  onProgress(sent) {
    if (!begun) console.log(`from ${sent}`);
    begun = true;
  },
  onShouldRetry(error) {
    const status = error.originalResponse?.getStatus() ?? 0;
    console.log(`retries after ${status} ${error.originalRequest?.getMethod()}`);
    return status === 0 || status === 409 || status === 423 || status >= 500;
  },
  onError(error) {
    console.error(String(error));
    process.exitCode = 1;
  },
  onSuccess() {
    // What it remembers of the upload is forgotten after this.
    console.log("done");
  },
});

const [previous] = await upload.findPreviousUploads();
if (previous) {
  console.log(`goes on with ${previous.uploadUrl}`);
  upload.resumeFromPreviousUpload(previous);
}
upload.start();
