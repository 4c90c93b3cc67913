//! HTTP/2 for scripts that know only HTTP/1: a translator in front of a backend, one behind a
//! client.
//!
//! Its HTTP/2 is hyperium's `h2`, so the plays that go through it also show that Ringway gets on
//! with another. It keeps to what RFC 9113 §8 says of messages, passes bodies on as they come while
//! both windows allow it, and repairs nothing: what is cut on one side is a reset on the other, and
//! who leaves on one side resets the stream on the other. Tasks of one runtime, which ends with the
//! process.

use std::{
    future::{Future, poll_fn},
    io::{Error, ErrorKind, Result},
    net::{self, Ipv4Addr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{self, SendRequest},
    ext::Protocol,
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::{Builder, Runtime},
};

/// Which side of a stage speaks HTTP/2.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sides {
    pub(crate) front: bool,
    pub(crate) behind: bool,
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});

/// The listeners of stages whose clients speak HTTP/2. An address is used once.
static LISTENERS: Mutex<Vec<SocketAddr>> = Mutex::new(Vec::new());

/// From now on clients that connect there speak HTTP/2.
pub(crate) fn speaks_http_2(address: SocketAddr) {
    LISTENERS.lock().unwrap().push(address);
}

/// That stage is struck.
pub(crate) fn forget(address: SocketAddr) {
    LISTENERS.lock().unwrap().retain(|at| *at != address);
}

pub(crate) fn is_spoken_at(address: SocketAddr) -> bool {
    LISTENERS.lock().unwrap().contains(&address)
}

/// Fields of a connection of HTTP/1 (RFC 9113 §8.2.2).
const OF_CONNECTION: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "host"];

/// A head of HTTP/1.
struct Head {
    start: String,
    fields: Vec<(String, String)>,
}

impl Head {
    fn field(&self, name: &str) -> Option<&str> {
        let mut named = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.as_str())
    }

    fn says(&self, name: &str, word: &str) -> bool {
        let value = self.field(name).unwrap_or_default();
        value.split(',').any(|one| one.trim().eq_ignore_ascii_case(word))
    }

    /// Its fields, but for those of the connection.
    fn map(&self) -> Result<HeaderMap> {
        let is_here = |(name, _): &&(String, String)| {
            OF_CONNECTION.iter().any(|of| name.eq_ignore_ascii_case(of))
        };
        map(self.fields.iter().filter(|field| !is_here(field)))
    }

    fn length(&self) -> Result<Option<u64>> {
        self.field("content-length").map(|text| text.parse().map_err(wrong)).transpose()
    }
}

fn wrong<E: std::error::Error + Send + Sync + 'static>(error: E) -> Error {
    Error::new(ErrorKind::InvalidData, error)
}

fn map<'a>(fields: impl Iterator<Item = &'a (String, String)>) -> Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let name: HeaderName = name.parse().map_err(wrong)?;
        map.append(name, HeaderValue::from_str(value).map_err(wrong)?);
    }
    Ok(map)
}

fn lines(fields: &HeaderMap) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in fields {
        lines.extend(name.as_str().bytes());
        lines.extend(b": ");
        lines.extend(value.as_bytes());
        lines.extend(b"\r\n");
    }
    lines
}

/// Reads HTTP/1. Every step may be given up and taken up again.
struct Reader {
    from: OwnedReadHalf,
    rest: Vec<u8>,
}

/// What is still to come of a body of HTTP/1.
enum Coming {
    Length(u64),
    UntilClose,
    Chunk(u64),
    ChunkEnd,
    ChunkHead,
    Trailers(HeaderMap),
}

enum Part {
    Bytes(Bytes),
    End(HeaderMap),
}

impl Reader {
    fn new(from: OwnedReadHalf) -> Reader {
        Reader { from, rest: Vec::new() }
    }

    /// Whether more came before the end.
    async fn more(&mut self) -> Result<bool> {
        Ok(self.from.read_buf(&mut self.rest).await? > 0)
    }

    async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let line = String::from_utf8(line).map_err(wrong)?;
                return Ok(line.trim_end_matches(['\r', '\n']).to_owned());
            }
            if !self.more().await? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn head(&mut self) -> Result<Head> {
        loop {
            if let Some(end) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.rest.drain(..end + 4).collect();
                let head = String::from_utf8(head).map_err(wrong)?;
                let mut lines = head.trim_end().split("\r\n");
                let start = lines.next().unwrap_or_default().to_owned();
                let field = |line: &str| {
                    let (name, value) = line.split_once(':')?;
                    Some((name.to_owned(), value.trim().to_owned()))
                };
                let fields: Option<Vec<_>> = lines.map(field).collect();
                let fields = fields.ok_or(ErrorKind::InvalidData)?;
                return Ok(Head { start, fields });
            }
            if !self.more().await? {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Some bytes, at most so many; none at the end.
    async fn some(&mut self, most: u64) -> Result<Bytes> {
        if self.rest.is_empty() && !self.more().await? {
            return Ok(Bytes::new());
        }
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(self.rest.len());
        Ok(self.rest.drain(..count).collect())
    }

    async fn part(&mut self, coming: &mut Coming) -> Result<Part> {
        loop {
            match coming {
                Coming::Length(0) => return Ok(Part::End(HeaderMap::new())),
                Coming::Chunk(0) => *coming = Coming::ChunkEnd,
                Coming::Length(left) | Coming::Chunk(left) => {
                    let piece = self.some(*left).await?;
                    if piece.is_empty() {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                    *left -= piece.len() as u64;
                    return Ok(Part::Bytes(piece));
                }
                Coming::UntilClose => {
                    let piece = self.some(u64::MAX).await?;
                    let is_end = piece.is_empty();
                    return Ok(if is_end {
                        Part::End(HeaderMap::new())
                    } else {
                        Part::Bytes(piece)
                    });
                }
                Coming::ChunkEnd => {
                    self.line().await?;
                    *coming = Coming::ChunkHead;
                }
                Coming::ChunkHead => {
                    let line = self.line().await?;
                    let size = line.split(';').next().unwrap_or_default();
                    let size = u64::from_str_radix(size.trim(), 16).map_err(wrong)?;
                    let trailers = Coming::Trailers(HeaderMap::new());
                    *coming = if size == 0 { trailers } else { Coming::Chunk(size) };
                }
                Coming::Trailers(trailers) => {
                    let line = self.line().await?;
                    if line.is_empty() {
                        return Ok(Part::End(std::mem::take(trailers)));
                    }
                    let (name, value) = line.split_once(':').ok_or(ErrorKind::InvalidData)?;
                    let field = (name.to_owned(), value.trim().to_owned());
                    trailers.extend(map([field].iter())?);
                }
            }
        }
    }
}

/// Why a message was not passed on.
enum Failed {
    /// The side of HTTP/1 broke it off, or is no HTTP/1.
    Here,
    /// The other end of the stream, or its connection, ended it.
    There,
    /// A client of HTTP/1 has left, and waits for nothing.
    Left,
}

impl From<Error> for Failed {
    fn from(_: Error) -> Failed {
        Failed::Here
    }
}

impl From<h2::Error> for Failed {
    fn from(_: h2::Error) -> Failed {
        Failed::There
    }
}

/// Sends bytes while the peer takes them.
async fn put(to: &mut SendStream<Bytes>, mut bytes: Bytes) -> std::result::Result<(), Failed> {
    while !bytes.is_empty() {
        to.reserve_capacity(bytes.len());
        while to.capacity() == 0 {
            match poll_fn(|cx| to.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(Failed::There),
            }
        }
        let piece = bytes.split_to(to.capacity().min(bytes.len()));
        to.send_data(piece, false)?;
    }
    Ok(())
}

/// Passes a body of HTTP/1 on to a stream, until its end or that of the stream.
async fn to_stream(
    reader: &mut Reader,
    mut coming: Coming,
    to: &mut SendStream<Bytes>,
) -> std::result::Result<(), Failed> {
    loop {
        let part = {
            let mut part = pin!(reader.part(&mut coming));
            poll_fn(|cx| {
                if to.poll_reset(cx).is_ready() {
                    return Poll::Ready(Err(Failed::There));
                }
                part.as_mut().poll(cx).map_err(Failed::from)
            })
            .await?
        };
        match part {
            Part::Bytes(bytes) => put(to, bytes).await?,
            Part::End(trailers) if trailers.is_empty() => {
                return Ok(to.send_data(Bytes::new(), true)?);
            }
            Part::End(trailers) => return Ok(to.send_trailers(trailers)?),
        }
    }
}

/// Passes the body of a stream on as one of HTTP/1.
async fn from_stream(
    body: &mut RecvStream,
    is_chunked: bool,
    to: &mut OwnedWriteHalf,
) -> std::result::Result<(), Failed> {
    while let Some(bytes) = body.data().await {
        let bytes = bytes?;
        if is_chunked && !bytes.is_empty() {
            to.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
        }
        to.write_all(&bytes).await?;
        if is_chunked && !bytes.is_empty() {
            to.write_all(b"\r\n").await?;
        }
        body.flow_control().release_capacity(bytes.len())?;
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    if is_chunked {
        to.write_all(&[b"0\r\n", &lines(&trailers)[..], b"\r\n"].concat()).await?;
    }
    Ok(())
}

/// A backend of HTTP/1, and connections to it that wait for the next request.
struct Behind {
    address: SocketAddr,
    idle: Mutex<Vec<(Reader, OwnedWriteHalf)>>,
    /// Connections whose answer may be whole already.
    busy: AtomicUsize,
}

/// How long a request waits for a connection that becomes idle: an answer is seen before that.
const BECOMES_IDLE: u32 = 20;

/// One of the connections that are busy.
struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Puts HTTP/2 in front of a backend.
pub(crate) fn behind(address: SocketAddr) -> SocketAddr {
    let listener = net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let behind = Arc::new(Behind { address, idle: Mutex::default(), busy: AtomicUsize::new(0) });
    RUNTIME.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serves(stream, Arc::clone(&behind)));
        }
    });
    at
}

/// Serves a connection of HTTP/2, unless the backend refuses one.
async fn serves(stream: TcpStream, behind: Arc<Behind>) -> std::result::Result<(), Failed> {
    stream.set_nodelay(true)?;
    let first = behind.take().await?;
    behind.idle.lock().unwrap().push(first);
    let mut conn = server::Builder::new().enable_connect_protocol().handshake(stream).await?;
    while let Some(accepted) = conn.accept().await {
        let (request, mut respond) = accepted?;
        let behind = Arc::clone(&behind);
        tokio::spawn(async move {
            if let Err(Failed::Here) = behind.answers(request, &mut respond).await {
                respond.send_reset(Reason::INTERNAL_ERROR);
            }
        });
    }
    Ok(())
}

impl Behind {
    /// A connection to the backend: one that is idle and open, or a new one.
    async fn take(&self) -> Result<(Reader, OwnedWriteHalf)> {
        for _ in 0..BECOMES_IDLE {
            let idle = self.idle.lock().unwrap().pop();
            if let Some((reader, to)) = idle {
                let is_quiet = reader.from.try_read(&mut [0]);
                if is_quiet.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                    return Ok((reader, to));
                }
            } else if self.busy.load(SeqCst) == 0 {
                break;
            } else {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (from, to) = stream.into_split();
        Ok((Reader::new(from), to))
    }

    /// Asks the backend, and passes its answer on.
    async fn answers(
        &self,
        request: Request<RecvStream>,
        respond: &mut SendResponse<Bytes>,
    ) -> std::result::Result<(), Failed> {
        let (mut reader, mut to) = self.take().await?;
        self.busy.fetch_add(1, SeqCst);
        let _busy = Busy(&self.busy);
        let (parts, mut body) = request.into_parts();
        let is_tunnel = parts.extensions.get::<Protocol>().is_some();
        let is_chunked = !is_tunnel
            && !body.is_end_stream()
            && !parts.headers.contains_key(http::header::CONTENT_LENGTH);
        let method = if is_tunnel { "GET" } else { parts.method.as_str() };
        let path = parts.uri.path_and_query().map_or("*", |path| path.as_str());
        let authority = parts.uri.authority().map_or("", |authority| authority.as_str());
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
        head.extend(lines(&parts.headers));
        for (is_so, line) in [
            (is_chunked, "Transfer-Encoding: chunked\r\n"),
            (parts.headers.contains_key(http::header::TE), "Connection: TE\r\n"),
            (is_tunnel, "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        ] {
            head.extend(if is_so { line.as_bytes() } else { b"" });
        }
        head.extend(b"\r\n");
        to.write_all(&head).await?;
        let is_to_head = parts.method == http::Method::HEAD;
        let keeps = {
            let mut download = pin!(answer(&mut reader, (is_to_head, is_tunnel), respond));
            let mut upload = pin!(async {
                let sent = from_stream(&mut body, is_chunked, &mut to).await;
                if is_tunnel && sent.is_ok() {
                    let _ = to.shutdown().await;
                }
                sent
            });
            let (mut sent, mut came) = (None, None);
            poll_fn(|cx| {
                if sent.is_none()
                    && let Poll::Ready(result) = upload.as_mut().poll(cx)
                {
                    match result {
                        // The client has left, unless that is what an early answer led to.
                        Err(Failed::There) if came.is_none() => {
                            return Poll::Ready(Err(Failed::There));
                        }
                        // A backend that reads no more may answer.
                        result => sent = Some(result.is_ok()),
                    }
                }
                if came.is_none()
                    && let Poll::Ready(result) = download.as_mut().poll(cx)
                {
                    match result {
                        Ok(keeps) => came = Some(keeps),
                        Err(failed) => return Poll::Ready(Err(failed)),
                    }
                }
                match (sent, came) {
                    (Some(sent), Some(keeps)) => Poll::Ready(Ok(sent && keeps)),
                    _ => Poll::Pending,
                }
            })
            .await?
        };
        if keeps {
            self.idle.lock().unwrap().push((reader, to));
        }
        Ok(())
    }
}

/// Passes the answers to a request on; whether another may follow on this connection.
async fn answer(
    reader: &mut Reader,
    (is_to_head, is_tunnel): (bool, bool),
    respond: &mut SendResponse<Bytes>,
) -> std::result::Result<bool, Failed> {
    loop {
        let head = {
            let mut head = pin!(reader.head());
            poll_fn(|cx| {
                if respond.poll_reset(cx).is_ready() {
                    return Poll::Ready(Err(Failed::There));
                }
                head.as_mut().poll(cx).map_err(Failed::from)
            })
            .await?
        };
        let status = head.start.split(' ').nth(1).unwrap_or_default();
        let status: StatusCode = status.parse().map_err(wrong)?;
        let mut response = Response::new(());
        *response.headers_mut() = head.map()?;
        *response.status_mut() = status;
        if status == StatusCode::SWITCHING_PROTOCOLS && is_tunnel {
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().remove("sec-websocket-accept");
            response.headers_mut().remove(http::header::CONTENT_LENGTH);
            let mut to = respond.send_response(response, false)?;
            to_stream(reader, Coming::UntilClose, &mut to).await.inspect_err(|_| {
                to.send_reset(Reason::INTERNAL_ERROR);
            })?;
            return Ok(false);
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Failed::Here);
        }
        if status.is_informational() {
            respond.send_informational(response)?;
            continue;
        }
        let has_none = is_to_head || matches!(status.as_u16(), 204 | 304);
        let coming = match (has_none, head.says("transfer-encoding", "chunked"), head.length()?) {
            (true, ..) => Coming::Length(0),
            (_, true, _) => Coming::ChunkHead,
            (_, _, Some(length)) => Coming::Length(length),
            _ => Coming::UntilClose,
        };
        let ends = matches!(coming, Coming::Length(0));
        let keeps = !head.says("connection", "close") && !matches!(coming, Coming::UntilClose);
        let mut to = respond.send_response(response, ends)?;
        if !ends {
            to_stream(reader, coming, &mut to).await?;
        }
        return Ok(keeps);
    }
}

/// An end that speaks HTTP/1 and whose requests reach an address by HTTP/2.
#[track_caller]
pub(crate) fn bridge(address: SocketAddr) -> net::TcpStream {
    let outer = net::TcpStream::connect(address).expect("no connection");
    let between = net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let ours = net::TcpStream::connect(between.local_addr().unwrap()).unwrap();
    let (plain, _) = between.accept().unwrap();
    for stream in [&outer, &plain, &ours] {
        stream.set_nodelay(true).unwrap();
    }
    outer.set_nonblocking(true).unwrap();
    plain.set_nonblocking(true).unwrap();
    RUNTIME.spawn(async move {
        let plain = TcpStream::from_std(plain).unwrap();
        let (from, mut to) = plain.into_split();
        let asked = asks(TcpStream::from_std(outer).unwrap(), Reader::new(from), &mut to).await;
        if matches!(asked, Err(Failed::Here | Failed::There)) {
            // Whatever was cut looks cut.
            let plain = to.as_ref();
            let _ = rustix::net::sockopt::set_socket_linger(plain, Some(Duration::ZERO));
        }
    });
    ours
}

/// Asks for one request after the other.
async fn asks(
    outer: TcpStream,
    mut reader: Reader,
    to: &mut OwnedWriteHalf,
) -> std::result::Result<(), Failed> {
    let (mut requests, conn) = client::handshake(outer).await?;
    let mut conn = tokio::spawn(conn);
    loop {
        let head = {
            let mut head = pin!(reader.head());
            poll_fn(|cx| match Pin::new(&mut conn).poll(cx) {
                // It closes what is idle.
                Poll::Ready(_) => Poll::Ready(None),
                Poll::Pending => head.as_mut().poll(cx).map(Result::ok),
            })
            .await
        };
        // The client has left between two requests, or its peer takes no more of them.
        let Some(head) = head else { return Ok(()) };
        if poll_fn(|cx| requests.poll_ready(cx)).await.is_err() {
            return Ok(());
        }
        if !exchange(&mut requests, &mut reader, (head, &mut *to)).await? {
            return Ok(());
        }
    }
}

/// Asks once; whether the client may ask again.
async fn exchange(
    requests: &mut SendRequest<Bytes>,
    reader: &mut Reader,
    (head, to): (Head, &mut OwnedWriteHalf),
) -> std::result::Result<bool, Failed> {
    let (method, path) = {
        let mut words = head.start.split(' ');
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    };
    let is_tunnel = head.says("upgrade", "websocket");
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = method.parse().map_err(wrong)?;
    let authority = head.field("host").unwrap_or("play.test");
    *request.uri_mut() = format!("http://{authority}{path}").parse().map_err(wrong)?;
    *request.headers_mut() = head.map()?;
    if is_tunnel {
        *request.method_mut() = http::Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
        request.headers_mut().remove("sec-websocket-key");
    }
    let coming = match (head.says("transfer-encoding", "chunked"), head.length()?) {
        _ if is_tunnel => Coming::UntilClose,
        (true, _) => Coming::ChunkHead,
        (false, length) => Coming::Length(length.unwrap_or(0)),
    };
    let ends = matches!(coming, Coming::Length(0));
    let (response, mut stream) = requests.send_request(request, ends)?;
    let of = (method == "HEAD", is_tunnel, head.says("connection", "close"));
    let mut download = pin!(answers_client(response, requests, of, to));
    let came = {
        let mut upload = pin!(async {
            if !ends {
                to_stream(reader, coming, &mut stream).await?;
            }
            if is_tunnel {
                return Ok(());
            }
            // What it asks next stays where it is; when it leaves, it waits no more.
            while reader.more().await? {}
            Err(Failed::Left)
        });
        let (mut has_sent, mut came) = (false, None);
        poll_fn(|cx| {
            if came.is_none()
                && let Poll::Ready(answered) = download.as_mut().poll(cx)
            {
                if !is_tunnel || !matches!(answered, Ok(false)) {
                    return Poll::Ready(answered);
                }
                came = Some(false);
            }
            if has_sent && let Some(keeps) = came {
                return Poll::Ready(Ok(keeps));
            }
            if !has_sent && let Poll::Ready(sent) = upload.as_mut().poll(cx) {
                match sent {
                    // How the stream ended its answer tells.
                    Ok(()) | Err(Failed::There) if came.is_some() => return Poll::Ready(Ok(false)),
                    Ok(()) | Err(Failed::There) => has_sent = true,
                    Err(failed) => return Poll::Ready(Err(failed)),
                }
            }
            Poll::Pending
        })
        .await
    };
    if matches!(came, Err(Failed::Here | Failed::Left)) {
        stream.send_reset(Reason::CANCEL);
    }
    came
}

/// Passes the answers to a request on to a client of HTTP/1; whether it may ask again.
async fn answers_client(
    mut response: client::ResponseFuture,
    requests: &SendRequest<Bytes>,
    (is_to_head, is_tunnel, closes): (bool, bool, bool),
    to: &mut OwnedWriteHalf,
) -> std::result::Result<bool, Failed> {
    while let Some(interim) = poll_fn(|cx| response.poll_informational(cx)).await {
        let interim = interim?;
        let status = interim.status().as_u16();
        let mut head = format!("HTTP/1.1 {status} \r\n").into_bytes();
        head.extend(lines(interim.headers()));
        head.extend(b"\r\n");
        to.write_all(&head).await?;
    }
    let (parts, mut body) = response.await?.into_parts();
    let opens = is_tunnel && parts.status.is_success();
    let status = if opens { 101 } else { parts.status.as_u16() };
    let has_none = is_to_head || opens || matches!(status, 204 | 304);
    let has_length = parts.headers.contains_key(http::header::CONTENT_LENGTH);
    let is_chunked = !has_none && !has_length && !body.is_end_stream();
    // Who takes no more requests says so by that.
    let mut ready = requests.clone();
    let is_last =
        matches!(poll_fn(|cx| Poll::Ready(ready.poll_ready(cx))).await, Poll::Ready(Err(_)));
    let mut head = format!("HTTP/1.1 {status} \r\n").into_bytes();
    head.extend(lines(&parts.headers));
    for (is_so, line) in [
        (is_chunked, "Transfer-Encoding: chunked\r\n"),
        (!has_none && !has_length && !is_chunked, "Content-Length: 0\r\n"),
        (closes || is_last, "Connection: close\r\n"),
        (opens, "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    ] {
        head.extend(if is_so { line.as_bytes() } else { b"" });
    }
    head.extend(b"\r\n");
    to.write_all(&head).await?;
    from_stream(&mut body, is_chunked, to).await?;
    if opens {
        to.shutdown().await?;
    }
    Ok(!closes && !is_last && !opens)
}
