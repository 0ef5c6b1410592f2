#!/usr/bin/python3
"""Back ends and clients that stay: for tests in which processes come and go under them.

    streams.py backend HTTP_PORT GRPC_PORT
    streams.py clients JSON

The back end answers GET and POST over HTTP/1 (with the length of the body it got), echoes what
comes after an upgrade, and echoes gRPC messages (/t.Echo/Talk, both ways streaming).

Clients, by {"http": port, "tls": port, "grpc": port, "ws": n, "talks": n, "uploads": n, "load": n,
"tls_load": n, "calls": n, "pause_ms": 3}:
    ws        WebSocket-like: an upgraded connection, one message at a time, echoed
    talks     gRPC streams, a channel each
    uploads   a POST, one byte a second
    load      GET after GET on a kept connection; where the server says `Connection: close`, or
              closes between two requests, a new one is made
    tls_load  the same over TLS
    calls     short gRPC calls, one after another, on a channel each
Each line on stdin is answered by a line of JSON with what happened so far: for each kind "n"
(messages or answers), "failed" (reasons, at most 10), "conns" (how many connections were made),
"ports" (the local ones). "quiet" ends the kinds of many connections first (load, tls_load, calls);
"end" ends all in good manners.
"""
import asyncio, json, ssl, sys

import grpc

METHOD = '/t.Echo/Talk'


# ---- back end

async def read_head(reader):
    head = (await reader.readuntil(b'\r\n\r\n')).decode('latin-1')
    fields = {}
    for line in head.split('\r\n')[1:]:
        name, _, value = line.partition(':')
        if name:
            fields[name.lower()] = value.strip()
    return head.split('\r\n')[0], fields


async def read_body(reader, fields):
    if 'chunked' not in fields.get('transfer-encoding', ''):
        return await reader.readexactly(int(fields.get('content-length', 0)))
    body = b''
    while True:
        n = int((await reader.readuntil(b'\r\n')).split(b';')[0], 16)
        body += (await reader.readexactly(n + 2))[:n]
        if n == 0:
            return body


async def serve_http(reader, writer):
    try:
        while True:
            line, fields = await read_head(reader)
            if 'upgrade' in fields:
                writer.write(b'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n'
                             b'Upgrade: websocket\r\n\r\n')
                while True:
                    data = await reader.read(4096)
                    if not data:
                        return
                    writer.write(data)
            body = await read_body(reader, fields)
            answer = str(len(body)).encode()
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s' % (len(answer), answer))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        async def talk(requests, context):
            async for message in requests:
                yield message
        return grpc.stream_stream_rpc_method_handler(talk)


async def backend(http_port, grpc_port):
    server = grpc.aio.server(options=[('grpc.so_reuseport', 0)])
    server.add_generic_rpc_handlers((Echo(),))
    if server.add_insecure_port('127.0.0.1:%d' % grpc_port) != grpc_port:
        raise SystemExit('gRPC port taken')
    await server.start()
    http = await asyncio.start_server(serve_http, '127.0.0.1', http_port)
    print('ready', flush=True)
    async with http:
        await http.serve_forever()


# ---- clients

class Kind:
    def __init__(self):
        self.n, self.failed, self.conns, self.ports = 0, [], 0, []

    def fail(self, why):
        if len(self.failed) < 10:
            self.failed.append(repr(why))

    def state(self):
        return {'n': self.n, 'failed': self.failed, 'conns': self.conns, 'ports': self.ports}


class Clients:
    def __init__(self, conf):
        self.conf = conf
        self.pause = conf.get('pause_ms', 3) / 1000
        self.kinds = {k: Kind() for k in ('ws', 'talks', 'uploads', 'load', 'tls_load', 'calls')}
        self.over, self.quiet = asyncio.Event(), asyncio.Event()
        self.tasks = []

    async def open(self, kind, port, tls=None):
        reader, writer = await asyncio.open_connection('127.0.0.1', port, ssl=tls)
        kind.conns += 1
        kind.ports.append(writer.get_extra_info('sockname')[1])
        return reader, writer

    async def wait(self, event, seconds):
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    async def ws(self, kind):
        reader, writer = await self.open(kind, self.conf['http'])
        writer.write(b'GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n')
        line, _ = await read_head(reader)
        if ' 101 ' not in line:
            return kind.fail(line)
        while not self.over.is_set():
            message = b'message %d;' % kind.n
            writer.write(message)
            if await reader.readexactly(len(message)) != message:
                return kind.fail('another echo')
            kind.n += 1
            await self.wait(self.over, 0.05)
        writer.write_eof()
        if await reader.read() != b'':
            kind.fail('more than the echo')
        writer.close()

    def channel(self, kind):
        kind.conns += 1
        return grpc.aio.insecure_channel('127.0.0.1:%d' % self.conf['grpc'],
                                         options=[('grpc.use_local_subchannel_pool', 1)])

    async def talks(self, kind):
        async with self.channel(kind) as channel:
            talk = channel.stream_stream(METHOD)()
            while not self.over.is_set():
                await talk.write(b'message')
                if await talk.read() != b'message':
                    return kind.fail('another echo')
                kind.n += 1
                await self.wait(self.over, 0.05)
            await talk.done_writing()
            if await talk.read() is not grpc.aio.EOF:
                kind.fail('more than the echo')
            if await talk.code() != grpc.StatusCode.OK:
                kind.fail(await talk.code())

    async def calls(self, kind):
        async with self.channel(kind) as channel:
            while not self.quiet.is_set():
                talk = channel.stream_stream(METHOD)(iter([b'one', b'two']), wait_for_ready=True)
                if [m async for m in talk] != [b'one', b'two']:
                    return kind.fail('another echo')
                kind.n += 1
                await asyncio.sleep(self.pause)

    async def uploads(self, kind):
        reader, writer = await self.open(kind, self.conf['http'])
        writer.write(b'POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n')
        sent = 0
        while not self.over.is_set():
            writer.write(b'1\r\nx\r\n')
            sent += 1
            await self.wait(self.over, 1)
        writer.write(b'0\r\n\r\n')
        line, fields = await read_head(reader)
        body = await read_body(reader, fields)
        if ' 200 ' not in line or int(body) != sent:
            kind.fail((line, body, sent))
        kind.n += sent
        writer.close()

    async def get_after_get(self, kind, port, tls):
        writer, answered = None, 0
        while not self.quiet.is_set():
            if writer is None:
                reader, writer = await self.open(kind, port, tls)
                answered = 0
            try:
                writer.write(b'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
                line, fields = await read_head(reader)
                body = await read_body(reader, fields)
            except (asyncio.IncompleteReadError, ConnectionError) as e:
                # between two requests a server may close (RFC 9112 §9.5); one under way it may not
                if answered == 0 or getattr(e, 'partial', b'') != b'' or self.conf.get('strict'):
                    kind.fail(e)
                writer.close()
                writer = None
                continue
            if ' 200 ' not in line or body == b'':
                kind.fail((line, body))
            kind.n += 1
            answered += 1
            if fields.get('connection') == 'close':
                writer.close()
                writer = None
            await asyncio.sleep(self.pause)
        if writer is not None:
            writer.close()

    async def load(self, kind):
        await self.get_after_get(kind, self.conf['http'], None)

    async def tls_load(self, kind):
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        await self.get_after_get(kind, self.conf['tls'], tls)

    async def guard(self, name):
        kind = self.kinds[name]
        try:
            await getattr(self, name)(kind)
        except Exception as e:
            kind.fail(e)

    def tell(self):
        print(json.dumps({k: v.state() for k, v in self.kinds.items()}), flush=True)

    async def run(self):
        loop = asyncio.get_running_loop()
        stdin = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
        many = []
        for name in self.kinds:
            for _ in range(self.conf.get(name, 0)):
                task = asyncio.ensure_future(self.guard(name))
                self.tasks.append(task)
                if name in ('load', 'tls_load', 'calls'):
                    many.append(task)
        while True:
            line = await stdin.readline()
            word = line.decode().strip()
            if word in ('quiet', 'end', ''):
                self.quiet.set()
                if many:
                    await asyncio.wait(many)
            if word in ('end', ''):
                self.over.set()
                if self.tasks:
                    await asyncio.wait(self.tasks)
            self.tell()
            if word in ('end', ''):
                return


if sys.argv[1] == 'backend':
    asyncio.run(backend(int(sys.argv[2]), int(sys.argv[3])))
else:
    asyncio.run(Clients(json.loads(sys.argv[2])).run())
