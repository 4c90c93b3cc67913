//! A scripted client: sends raw bytes, reads responses strictly, ends as the play wants.
//!
//! It never repairs anything. A response that is framed wrongly, bytes after a response, a missing
//! final chunk or a reset instead of an end fail the play, with what was read. It does not
//! reconnect and has no notion of what a request should look like: plays write the bytes.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use rustix::net::{connect, sockopt};

use crate::{
    pace::{Took, Watch},
    secure, translated,
    wire::{Broken, Fields, Framing, Head, PATIENCE, Wire, socket},
};

/// A response as it stood on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// The status code.
    pub(crate) status: u16,
    /// Status line and fields.
    pub(crate) head: Head,
    /// How its body was framed.
    pub(crate) framing: Framing,
    /// The body without framing.
    pub(crate) body: Vec<u8>,
    /// What followed the last chunk.
    pub(crate) trailers: Fields,
}

impl Response {
    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is no text")
    }

    /// The value of the only field of that name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// Whether it says that the connection ends after it.
    pub(crate) fn closes(&self) -> bool {
        self.head.lists("connection", "close")
    }

    /// Fails unless it has that status and that body.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16, body: &str) {
        let text = String::from_utf8_lossy(&self.body);
        assert!(self.status == status && text == body, "not {status} {body:?} but\n{self:#?}");
    }

    /// Fails unless it is a fault of Ringway's own with that status and code.
    #[track_caller]
    pub(crate) fn expect_fault(&self, status: u16, code: &str) {
        let token = format!("\"code\":\"{code}\"");
        assert!(self.status == status && self.text().contains(&token), "no {code}:\n{self:#?}");
        assert!(self.field("proxy-status").is_some_and(|value| value.starts_with("ringway; ")));
    }
}

/// A scripted client with one connection.
#[derive(Debug)]
pub(crate) struct Client {
    wire: Wire,
}

impl Client {
    /// Connects.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Client {
        if let Some(identity) = secure::identity_at(address) {
            return identity.connect(address);
        }
        if translated::is_spoken_at(address) {
            return Client::over(translated::bridge(address));
        }
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("no connection");
        Client::over(stream)
    }

    /// Speaks over a connection that was made.
    pub(crate) fn over(stream: TcpStream) -> Client {
        Client { wire: Wire::new(stream) }
    }

    /// Connects with a receive buffer of about that many bytes, which fills soon.
    pub(crate) fn connect_with_small_buffer(address: SocketAddr, bytes: usize) -> Client {
        let stream = socket();
        sockopt::set_socket_recv_buffer_size(&stream, bytes).unwrap();
        connect(&stream, &address).expect("no connection");
        Client { wire: Wire::new(TcpStream::from(stream)) }
    }

    /// The wire below, for what this client has no method for.
    pub(crate) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Sends these bytes.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        self.wire.try_send(bytes).expect("could not send");
        self
    }

    /// Sends these bytes, or as many as are taken before the connection breaks.
    pub(crate) fn send_what_is_taken(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        let _ = self.wire.try_send(bytes);
        self
    }

    /// Sends these bytes one by one.
    #[track_caller]
    pub(crate) fn send_in_single_bytes(&mut self, bytes: impl AsRef<[u8]>) -> &mut Client {
        for byte in bytes.as_ref() {
            self.send([*byte]);
            std::thread::yield_now();
        }
        self
    }

    /// Sends these bytes, one every `pause`, until they are sent or the connection ends.
    pub(crate) fn send_slowly(&mut self, bytes: impl AsRef<[u8]>, pause: Duration) -> &mut Client {
        for byte in bytes.as_ref() {
            if self.wire.try_send([*byte]).is_err() {
                break;
            }
            std::thread::sleep(pause);
        }
        self
    }

    /// Asks for a path and reads the answer; the connection stays open.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Response {
        self.send(get(path)).response()
    }

    /// Reads the next response; interim ones count.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// Reads the next response, which answers a request of that method.
    #[track_caller]
    pub(crate) fn response_to(&mut self, method: &str) -> Response {
        match self.try_response_to(method) {
            Ok(response) => response,
            Err((broken, read)) => panic!("{broken:?} instead of a response; read {read:#?}"),
        }
    }

    /// Reads the next response or says why it is not whole, with what had come of it.
    pub(crate) fn try_response(&mut self) -> Result<Response, (Broken, Option<Response>)> {
        self.try_response_to("GET")
    }

    /// Reads the next response to a request of that method or says why it is not whole.
    pub(crate) fn try_response_to(
        &mut self,
        method: &str,
    ) -> Result<Response, (Broken, Option<Response>)> {
        let mut response = self.response_head(method).map_err(|broken| (broken, None))?;
        let mut body = Vec::new();
        let whole =
            self.wire.body_into(response.framing, &mut |piece| body.extend_from_slice(piece));
        response.body = body;
        match whole {
            Ok(trailers) => Ok(Response { trailers, ..response }),
            Err(broken) => Err((broken, Some(response))),
        }
    }

    /// Reads only the head of the next response.
    pub(crate) fn response_head(&mut self, method: &str) -> Result<Response, Broken> {
        let head = self.wire.head()?;
        let status = status(&head)?;
        let announced = head.framing()?;
        let bodiless = method == "HEAD" || matches!(status, 100..=199 | 204 | 304);
        if matches!(status, 100..=199 | 204) && announced.is_some() {
            return Err(Broken::Wrong(format!("a length with {status} in\n{}", head.raw)));
        }
        let framing = match announced {
            _ if bodiless => Framing::Nothing,
            Some(framing) => framing,
            None => Framing::UntilClose,
        };
        Ok(Response { status, head, framing, body: Vec::new(), trailers: Vec::new() })
    }

    /// Says that no more will be sent.
    pub(crate) fn half_close(&mut self) -> &mut Client {
        self.wire.half_close();
        self
    }

    /// Leaves with a reset.
    pub(crate) fn reset(self) {
        self.wire.reset();
    }

    /// Fails unless the connection ends here, cleanly and without another byte.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        match self.wire.until_end() {
            Ok(rest) if rest.is_empty() => {}
            Ok(rest) => panic!("extra bytes: {:?}", String::from_utf8_lossy(&rest)),
            Err(broken) => panic!("{broken:?} instead of a clean end"),
        }
    }

    /// Fails unless the connection ends here, by a close or a reset, without another byte.
    #[track_caller]
    pub(crate) fn expect_gone(&mut self) {
        match self.wire.until_end() {
            Ok(rest) if rest.is_empty() => {}
            Err(Broken::Reset) => {}
            other => panic!("{other:?} instead of an end"),
        }
    }

    /// Fails if anything comes, bytes or an end, within `wait`.
    #[track_caller]
    pub(crate) fn expect_silence(&mut self, wait: Duration) {
        self.wire.wait_at_most(wait);
        let some = self.wire.some();
        self.wire.wait_at_most(PATIENCE);
        assert_eq!(some, Err(Broken::Silent), "neither bytes nor an end were due");
    }

    /// How long it takes until this has come; the trigger belongs inside too.
    pub(crate) fn waits(&mut self, for_what: impl FnOnce(&mut Client)) -> Took {
        let watch = Watch::start();
        for_what(self);
        watch.took()
    }
}

/// The bytes of a plain request.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: play.test\r\n\r\n")
}

/// The bytes of a request with a length.
pub(crate) fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: play.test\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn status(head: &Head) -> Result<u16, Broken> {
    let wrong = || Broken::Wrong(format!("status line {:?}", head.start));
    let mut parts = head.start.splitn(3, ' ');
    let (version, code, reason) = (parts.next(), parts.next(), parts.next());
    if !matches!(version, Some("HTTP/1.1" | "HTTP/1.0")) || reason.is_none() {
        return Err(wrong());
    }
    let code = code.filter(|code| code.len() == 3).and_then(|code| code.parse().ok());
    code.filter(|code| (100..1000).contains(code)).ok_or_else(wrong)
}
