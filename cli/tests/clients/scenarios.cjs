// What users do with Daytona's SDK for TypeScript.
//
//   node scenarios.cjs SCENARIO
//
// Reads what it needs to know as JSON from standard input and prints what it saw.
'use strict'

const crypto = require('node:crypto')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

const told = JSON.parse(fs.readFileSync(0, 'utf8'))
const sdk = require.resolve('@daytona/sdk', { paths: [told.modules] })
const { Daytona, Image } = require(sdk)

const shown = (snapshot) => ({
  name: snapshot.name,
  state: snapshot.state,
  cpu: snapshot.cpu,
  gpu: snapshot.gpu,
  mem: snapshot.mem,
  disk: snapshot.disk,
  entrypoint: snapshot.entrypoint,
  region_ids: snapshot.regionIds,
  general: snapshot.general,
  has_size: snapshot.size !== null && snapshot.size !== undefined,
})

const failure = async (call) => {
  try {
    await call()
  } catch (error) {
    return { error: error.constructor.name, message: error.message }
  }
  return { error: null }
}

const buildWithLogs = async (client, params) => {
  const logs = []
  const snapshot = await client.snapshot.create(params, { onLogs: (chunk) => logs.push(chunk) })
  return [snapshot, logs]
}

// Local paths are relative to the working folder, as in the documentation.
const inFolder = async (use) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'slipway-ts-'))
  const before = process.cwd()
  process.chdir(folder)
  try {
    return await use(folder)
  } finally {
    process.chdir(before)
    fs.rmSync(folder, { recursive: true })
  }
}

// A tar as the command line sends folders: the last file is not padded and the archive
// has no end, since it is read before its writer is closed.
const truncatedTar = (entries) => {
  const blocks = []
  for (const [name, text] of entries) {
    const isFolder = text === undefined
    const header = Buffer.alloc(512)
    const body = Buffer.from(text ?? '')
    header.write(name, 0)
    header.write(isFolder ? '0000755\0' : '0000644\0', 100)
    header.write('0000000\0' + '0000000\0', 108)
    header.write(body.length.toString(8).padStart(11, '0') + '\0' + '00000000000\0', 124)
    header.write('        ', 148)
    header.write(isFolder ? '5' : '0', 156)
    header.write('ustar\x0000', 257)
    const sum = header.reduce((sum, byte) => sum + byte, 0)
    header.write(sum.toString(8).padStart(6, '0') + '\0 ', 148)
    blocks.push(header, body, Buffer.alloc((512 - (body.length % 512)) % 512))
  }
  return Buffer.concat(blocks.slice(0, -1))
}

// A request of the command line to the API.
const asCommandLine = async (path, body) => {
  const headers = { authorization: `Bearer ${told.key}`, 'x-daytona-source': 'cli' }
  const sent = body && { method: 'POST', body: JSON.stringify(body) }
  const answer = await fetch(told.api + path, {
    headers: body ? { ...headers, 'content-type': 'application/json' } : headers,
    ...sent,
  })
  if (!answer.ok) {
    throw new Error(`${path}: ${answer.status} ${await answer.text()}`)
  }
  return answer
}

// Brings a context as the command line does: it asks where the bucket is and what is
// there, puts an empty object in place of a folder, and then the archive.
const uploadContext = async (s3, store, access, tar) => {
  const hash = crypto.createHash('sha256').update(tar).digest('hex')
  const bucket = { Bucket: access.bucket }
  const folder = `${access.organizationId}/${hash}/`
  await store.send(new s3.GetBucketLocationCommand(bucket))
  await store.send(
    new s3.ListObjectsV2Command({ ...bucket, Prefix: access.organizationId, Delimiter: '/' }),
  )
  const marker = { Key: folder, Body: Buffer.alloc(0), ContentType: 'application/directory' }
  await store.send(new s3.PutObjectCommand({ ...bucket, ...marker, ContentLength: 0 }))
  await store.send(new s3.PutObjectCommand({ ...bucket, Key: `${folder}context.tar`, Body: tar }))
  return hash
}

const scenarios = {
  // The requests of Daytona's command line for a Dockerfile with a folder and a file.
  async command_line() {
    const modules = { paths: [path.dirname(sdk), told.modules] }
    const s3 = require(require.resolve('@aws-sdk/client-s3', modules))
    const access = await (await asCommandLine('/object-storage/push-access')).json()
    const store = new s3.S3Client({
      endpoint: access.storageUrl,
      region: access.region,
      forcePathStyle: true,
      credentials: {
        accessKeyId: access.accessKey,
        secretAccessKey: access.secret,
        sessionToken: access.sessionToken,
      },
    })
    const folder = [['./'], ['a.txt', 'from a, '], ['sub/'], ['sub/b.txt', 'from b, ']]
    const file = [['c.txt', 'from c']]
    const contextHashes = []
    for (const entries of [folder, file]) {
      contextHashes.push(await uploadContext(s3, store, access, truncatedTar(entries)))
    }
    store.destroy()
    const dockerfileContent =
      `FROM ${told.image}\nENV MARKER=${told.marker}\nCOPY . /ctx\nADD c.txt /added.txt\n` +
      'RUN cd /ctx && cat a.txt sub/b.txt c.txt && echo && cat /added.txt && echo\n'
    const build = { name: 'by/cli:1', buildInfo: { dockerfileContent, contextHashes } }
    const { id } = await (await asCommandLine('/snapshots', build)).json()
    const logs = await (await asCommandLine(`/snapshots/${id}/build-logs?follow=true`)).text()
    let snapshot
    do {
      await new Promise((resolve) => setTimeout(resolve, 200))
      snapshot = await (await asCommandLine(`/snapshots/${id}`)).json()
    } while (!['active', 'error', 'build_failed'].includes(snapshot.state))
    const seen = ['from a, from b, from c', ' from c\n'].map((text) => logs.includes(text))
    return { state: snapshot.state, reason: snapshot.errorReason, seen }
  },

  async images(client) {
    const [snapshot, logs] = await buildWithLogs(client, {
      name: 'team/from-image:1.0',
      image: told.image,
      resources: { cpu: 2, memory: 3, disk: 4 },
      entrypoint: ['sleep', '60'],
    })
    const seen = { created: shown(snapshot), heard: logs.length > 0 }
    const got = await client.snapshot.get('team/from-image:1.0')
    seen.same = got.id === snapshot.id
    seen.by_id = (await client.snapshot.get(snapshot.id)).name
    await client.snapshot.delete(got)
    return seen
  },

  async declared(client) {
    return inFolder(async () => {
      fs.mkdirSync('src/deep', { recursive: true })
      fs.writeFileSync('one.txt', 'one')
      fs.writeFileSync('src/two.txt', 'two')
      fs.writeFileSync('src/deep/three.sh', 'three', { mode: 0o755 })
      // Large enough to be sent in parts.
      fs.writeFileSync('large.bin', Buffer.alloc(12 << 20, told.marker))
      const image = Image.base(told.image)
        .addLocalFile('one.txt', '/data/one.txt')
        .addLocalDir('src', '/data/src')
        .addLocalFile('large.bin', '/data/large.bin')
        .env({ GREETING: 'hello' })
        .workdir('/data')
        .runCommands(
          `echo marker ${told.marker}`,
          'cat one.txt src/two.txt src/deep/three.sh && echo && ls -l src/deep/three.sh | cut -c 1-10',
          'for i in 1 2 3; do echo "$GREETING $i"; sleep 1; done',
          'wc -c <large.bin',
        )
      const params = { name: 'declared', image, entrypoint: ['sleep', 'infinity'] }
      const [snapshot, logs] = await buildWithLogs(client, params)
      const second = await client.snapshot.create({ name: 'declared-again', image })
      const text = logs.join('\n')
      const words = ['onetwothree', '-rwxr-xr-x', 'hello 1', 'hello 2', 'hello 3', '12582912']
      const order = words.map((word) => text.indexOf(word))
      const complete = Math.min(...order) >= 0
      return {
        created: shown(snapshot),
        again: second.state,
        in_order: complete && order.every((at, n) => n === 0 || order[n - 1] < at),
        contexts: snapshot.buildInfo.contextHashes.length,
        text: complete ? 'complete' : text,
      }
    })
  },

  async dockerfile(client) {
    return inFolder(async (folder) => {
      const file = path.join(folder, 'Dockerfile')
      fs.writeFileSync(path.join(folder, 'app.txt'), 'from the context')
      fs.mkdirSync(path.join(folder, 'conf.d'))
      fs.writeFileSync(path.join(folder, 'conf.d/a.conf'), 'a = 1')
      fs.writeFileSync(
        file,
        `FROM ${told.image}\nENV MARKER=${told.marker}\n` +
          'COPY app.txt /app.txt\nCOPY conf.d /etc/conf.d\nADD app.txt /added.txt\n' +
          'RUN cat /app.txt && echo && cat /etc/conf.d/a.conf /added.txt && echo && sleep 3\n' +
          'ENTRYPOINT ["cat", "/app.txt"]\n',
      )
      const image = Image.fromDockerfile(file)
      const [snapshot, logs] = await buildWithLogs(client, { name: 'dockerfile', image })
      const text = logs.join('\n')
      const words = ['from the context', 'a = 1from the context']
      return { created: shown(snapshot), seen: words.map((word) => text.includes(word)) }
    })
  },

  // What debianSlim begins with: the last release of Python that this SDK knows.
  async debian_slim_name() {
    return Image.debianSlim('3.12').dockerfile.split(/\s+/)[1]
  },

  // The image of the documentation, through a mirror, with a package from PyPI.
  async debian_slim(client) {
    const image = Image.debianSlim('3.12')
      .pipInstall('six')
      .runCommands(
        `echo ${told.marker}`,
        `python -c 'import six; print("six is", six.__name__)'`,
        'sleep 3',
      )
    const [snapshot, logs] = await buildWithLogs(client, { name: 'slim', image })
    return { created: shown(snapshot), six: logs.join('\n').includes('six is six') }
  },

  async pages(client) {
    const created = []
    for (const n of [0, 1, 2]) {
      created.push(await client.snapshot.create({ name: `page-${n}`, image: told.image }))
    }
    const first = await client.snapshot.list(1, 2)
    const second = await client.snapshot.list(2, 2)
    const names = [...first.items, ...second.items].map((item) => item.name).sort()
    await client.snapshot.delete('page-0')
    for (const snapshot of created.slice(1)) {
      await client.snapshot.delete(snapshot)
    }
    return { names, totals: [first.total, first.totalPages, second.page] }
  },

  // A snapshot that was taken out of use comes back.
  async activate(client) {
    const snapshot = await client.snapshot.create({ name: 'resting', image: told.image })
    // The client has no call for this; the web console has.
    const headers = { authorization: `Bearer ${told.key}` }
    await fetch(`${told.api}/snapshots/${snapshot.id}/deactivate`, { method: 'POST', headers })
    const resting = await client.snapshot.get('resting')
    const seen = { resting: shown(resting) }
    seen.activated = shown(await client.snapshot.activate(resting))
    seen.again = await failure(() => client.snapshot.activate(resting))
    await client.snapshot.delete(resting)
    return seen
  },

  async gpu(client) {
    const at = (regionId) => ({ name: 'gpu', image: told.image, resources: { gpu: 1 }, regionId })
    const elsewhere = await failure(() => client.snapshot.create(at('us')))
    return { elsewhere, created: shown(await client.snapshot.create(at('us-east-1'))) }
  },

  async quota(client) {
    await client.snapshot.create({ name: 'first', image: told.image })
    const more = () => client.snapshot.create({ name: 'second', image: told.image })
    const seen = { refused: await failure(more) }
    await client.snapshot.delete('first')
    return seen
  },

  async errors(client) {
    const image = told.image
    const create = (name, image, more) => () => client.snapshot.create({ name, image, ...more })
    const seen = {}
    seen.bad_name = await failure(create('no spaces', image))
    seen.latest = await failure(create('latest', image.replace(/:[^:]*$/, ':latest')))
    seen.no_tag = await failure(create('no-tag', 'busybox'))
    seen.region = await failure(create('mars', image, { regionId: 'mars' }))
    seen.too_large = await failure(create('large', image, { resources: { cpu: 64 } }))
    seen.no_such_image = await failure(create('gone', image.replace(/\/[^/]*$/, '/nothing:1')))
    const failing = Image.base(image).runCommands(`echo ${told.marker}`, 'echo before; exit 3')
    seen.failed_build = await failure(create('failing', failing))
    await client.snapshot.create({ name: 'taken', image })
    seen.taken = await failure(create('taken', image))
    seen.unknown = await failure(() => client.snapshot.get('unknown'))
    seen.delete_unknown = await failure(() => client.snapshot.delete('unknown'))
    const stranger = new Daytona({ apiKey: `dtn_${'0'.repeat(64)}`, apiUrl: told.api })
    seen.wrong_key = await failure(() => stranger.snapshot.list())
    const withFile = Image.base(image).addLocalFile(__filename, '/x')
    seen.wrong_key_upload = await failure(() => stranger.snapshot.create({ name: 'x', image: withFile }))
    await close(stranger)
    return seen
  },
}

const close = async (client) => {
  if (Symbol.asyncDispose in client) {
    await client[Symbol.asyncDispose]()
  }
}

const main = async () => {
  const client = new Daytona({ apiKey: told.key, apiUrl: told.api })
  try {
    const seen = await scenarios[process.argv[2]](client)
    process.stdout.write(JSON.stringify(seen))
  } finally {
    await close(client)
  }
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
