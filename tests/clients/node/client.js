// kafkajs. ../README.md says what the commands mean.
'use strict'
const zlib = require('zlib')
const readline = require('readline')
const { Kafka, CompressionTypes, CompressionCodecs, PartitionAssigners, logLevel } = require('kafkajs')
const lz4 = require('lz4-napi')
const { Encoder, Decoder } = require('@toondepauw/node-zstd')

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer),
})
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: encoder => new Encoder(3).encode(encoder.buffer),
  decompress: buffer => new Decoder().decode(buffer),
})

const CODECS = { none: 'None', gzip: 'GZIP', snappy: 'Snappy', lz4: 'LZ4', zstd: 'ZSTD' }

const say = (...words) => process.stdout.write(words.join(' ') + '\n')

const decode = field => (field === '-' ? null : Buffer.from(field.slice(1), 'hex'))

const digest = data => {
  if (data === null || data === undefined) return '-'
  const bytes = Buffer.from(data)
  return `${bytes.length}:${zlib.crc32(bytes).toString(16).padStart(8, '0')}`
}

function parse(line) {
  const [partition, timestamp, key, value, ...pairs] = line.split(' ')
  const headers = {}
  for (const [name, data] of pairs.map(pair => pair.split('='))) {
    const before = headers[name]
    headers[name] = before === undefined ? decode(data) : [before, decode(data)].flat()
  }
  return { partition: Number(partition), timestamp, key: decode(key), value: decode(value), headers }
}

function show(topic, partition, { offset, timestamp, key, value, headers }) {
  const pairs = Object.entries(headers || {}).flatMap(([name, data]) =>
    (Array.isArray(data) ? data : [data]).map(one => `${name}=${digest(one)}`)
  )
  say(topic, partition, offset, timestamp, digest(key), digest(value), ...pairs)
}

const client = (bootstrap, retries) =>
  new Kafka({
    brokers: [bootstrap],
    logLevel: logLevel.NOTHING,
    retry: { retries, initialRetryTime: 100, maxRetryTime: 1000 },
  })

async function write(bootstrap, topic, codec) {
  const producer = client(bootstrap, 100).producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  let messages = []
  const send = async () => {
    const batch = { topic, compression: CompressionTypes[CODECS[codec]], messages }
    messages = []
    if (batch.messages.length) await producer.send(batch)
  }
  for await (const line of readline.createInterface({ input: process.stdin })) {
    messages.push(parse(line))
    if (messages.length === 10) await send()
  }
  await send()
  await producer.disconnect()
}

// kafkajs reads in groups only.
async function read(bootstrap, time, ...topics) {
  const kafka = client(bootstrap, 5)
  const admin = kafka.admin()
  await admin.connect()
  const left = new Map()
  const starts = []
  for (const topic of topics) {
    const found = time === 'beginning' ? [] : await admin.fetchTopicOffsetsByTimestamp(topic, Number(time))
    for (const { partition, low, high } of await admin.fetchTopicOffsets(topic)) {
      const offset = found.find(one => one.partition === partition)?.offset ?? low
      starts.push({ topic, partition, offset })
      if (Number(offset) < Number(high)) left.set(`${topic} ${partition}`, Number(high))
    }
  }
  await admin.disconnect()
  if (left.size === 0) return
  const consumer = kafka.consumer({ groupId: `reader-${process.pid}`, maxWaitTimeInMs: 100 })
  await consumer.connect()
  await consumer.subscribe({ topics, fromBeginning: true })
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error))
    const eachBatch = async ({ batch: { topic, partition, messages } }) => {
      const name = `${topic} ${partition}`
      for (const message of messages) {
        if (Number(message.offset) < (left.get(name) ?? 0)) show(topic, partition, message)
        if (Number(message.offset) + 1 >= left.get(name)) left.delete(name)
      }
      if (left.size === 0) resolve()
    }
    consumer.run({ autoCommit: false, eachBatch }).then(() => starts.forEach(start => consumer.seek(start)), reject)
  })
  await consumer.disconnect()
}

async function group(bootstrap, topic, groupId) {
  const consumer = client(bootstrap, 5).consumer({
    groupId,
    sessionTimeout: 6000,
    heartbeatInterval: 500,
    rebalanceTimeout: 10000,
    maxWaitTimeInMs: 500,
    partitionAssigners: [PartitionAssigners.roundRobin],
  })
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    say('assigned', ...(payload.memberAssignment[topic] ?? []).sort((a, b) => a - b))
  })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ partition, message: { offset } }) => {
      say('at', partition, offset)
      await consumer.commitOffsets([{ topic, partition, offset: String(Number(offset) + 1) }])
    },
  })
  process.stdin.resume()
  await new Promise(resolve => process.stdin.on('end', resolve))
  await consumer.disconnect()
}

async function errors(bootstrap, unknown, small) {
  const producer = client(bootstrap, 2).producer({ allowAutoTopicCreation: false })
  await producer.connect()
  for (const [name, topic] of Object.entries({ unknown, large: small })) {
    const sent = producer.send({ topic, messages: [{ value: Buffer.alloc(200000) }] })
    say(name, await sent.then(() => 0, error => error.code ?? error.cause?.code ?? error.name))
  }
  await producer.disconnect()
}

const [command, ...args] = process.argv.slice(2)
const fail = error => {
  console.error(error)
  process.exit(1)
}
Promise.resolve({ write, read, group, errors }[command](...args)).then(() => process.exit(0), fail)
