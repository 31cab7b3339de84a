// npm's dockerode against the daemon that DOCKER_HOST names: the calls of a usual user.
'use strict';
const assert = require('node:assert');
const { PassThrough } = require('node:stream');
const { once } = require('node:events');
const Docker = require('dockerode');
const tar = require('tar-stream');

const docker = new Docker({ socketPath: process.env.DOCKER_HOST.replace('unix://', '') });

async function text(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return Buffer.concat(parts).toString();
}

// The two streams of a container without a terminal, until they end.
async function demultiplexed(modem, stream) {
  const [out, err] = [new PassThrough(), new PassThrough()];
  modem.demuxStream(stream, out, err);
  stream.on('end', () => { out.end(); err.end(); });
  return Promise.all([text(out), text(err)]);
}

async function main() {
  assert.strictEqual((await docker.ping()).toString(), 'OK');
  assert.ok((await docker.version()).ApiVersion);
  assert.strictEqual((await docker.info()).Containers, 0);

  const seen = [];
  const events = await docker.getEvents({ filters: { type: ['container'] } });
  events.on('data', (lines) => {
    for (const line of lines.toString().trim().split('\n')) seen.push(JSON.parse(line).Action);
  });

  const volume = await docker.createVolume({ Name: 'node-data', Labels: { of: 'node' } });
  const listed = await docker.listVolumes({ filters: { label: ['of=node'] } });
  assert.deepStrictEqual(listed.Volumes.map((one) => one.Name), ['node-data']);

  const script = "trap 'exit 7' TERM; echo out; echo err >&2; while :; do sleep 0.05; done";
  const container = await docker.createContainer({
    name: 'node', Image: 'busybox', Cmd: ['sh', '-c', script], Env: ['A=B'], Labels: { l: '1' },
    HostConfig: { Memory: 64 << 20, Mounts: [{ Type: 'volume', Source: 'node-data', Target: '/data' }] },
  });
  const attached = await container.attach({ stream: true, stdout: true, stderr: true });
  const output = demultiplexed(docker.modem, attached);
  await container.start();
  const inspected = await container.inspect();
  assert.ok(inspected.State.Running);
  assert.strictEqual(inspected.HostConfig.Memory, 64 << 20);
  const running = await docker.listContainers({ filters: { label: ['l=1'] } });
  assert.deepStrictEqual(running.map((one) => one.Names), [['/node']]);

  const exec = await container.exec({ Cmd: ['sh', '-c', 'cat; echo $A >&2; exit 5'], AttachStdin: true, AttachStdout: true, AttachStderr: true });
  const session = await exec.start({ hijack: true, stdin: true });
  const both = demultiplexed(docker.modem, session);
  session.write('typed\n');
  session.end();
  assert.deepStrictEqual(await both, ['typed\n', 'B\n']);
  assert.strictEqual((await exec.inspect()).ExitCode, 5);

  const packed = tar.pack();
  packed.entry({ name: 'given', uid: 12 }, '12345');
  packed.finalize();
  await container.putArchive(packed, { path: '/data' });
  const unpacked = tar.extract();
  const entries = [];
  unpacked.on('entry', async (header, content, next) => {
    entries.push([header.name, header.uid, await text(content)]);
    next();
  });
  (await container.getArchive({ path: '/data/given' })).pipe(unpacked);
  await once(unpacked, 'finish');
  assert.deepStrictEqual(entries, [['given', 12, '12345']]);

  assert.ok((await container.stats({ stream: false })).memory_stats.usage > 0);
  const streamed = await container.stats({ stream: true });
  const [first] = await once(streamed, 'data');
  assert.strictEqual(JSON.parse(first.toString().split('\n')[0]).name, '/node');
  streamed.destroy();
  assert.ok((await container.top()).Processes.length >= 1);

  await container.pause();
  assert.strictEqual((await container.inspect()).State.Status, 'paused');
  await container.unpause();
  await container.rename({ name: 'node2' });
  await container.update({ Memory: 32 << 20, MemorySwap: 64 << 20 });
  const [ended] = await Promise.all([container.wait(), container.stop({ t: 100 })]);
  assert.strictEqual(ended.StatusCode, 7);
  assert.deepStrictEqual(await output, ['out\n', 'err\n']);
  const logs = await container.logs({ stdout: true, stderr: false });
  assert.strictEqual(logs.toString().slice(8), 'out\n');
  await assert.rejects(volume.remove(), { statusCode: 409 });
  await container.remove();
  await assert.rejects(container.inspect(), { statusCode: 404 });
  await volume.remove();

  const stdout = new PassThrough();
  const said = text(stdout);
  const [result, ran] = await docker.run('busybox', ['sh', '-c', 'echo hello; exit 3'], stdout);
  assert.strictEqual(result.StatusCode, 3);
  await ran.remove();
  assert.match(await said, /hello/);

  // They come on a connection of their own.
  const wanted = ['create', 'attach', 'start', 'exec_die', 'pause', 'unpause', 'rename', 'update', 'kill', 'die', 'destroy'];
  const deadline = Date.now() + 120000;
  while (!wanted.every((action) => seen.includes(action)) && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.deepStrictEqual(wanted.filter((action) => !seen.includes(action)), []);
  events.destroy();
  console.log('dockerode: done');
}

main().catch((error) => { console.error(error); process.exit(1); });
