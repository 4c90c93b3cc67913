//! A name server on loopback: answers A, AAAA and SRV questions by what the play says of a name at
//! the moment.
//!
//! A name that it does not know does not exist. Long answers are given over TCP alone. Each
//! question is noted.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

/// The longest answer over UDP.
const UDP_MAX: usize = 1232;

/// One record of a name.
#[derive(Clone)]
pub(crate) enum Record {
    /// An address.
    Host(IpAddr),
    /// A service: priority, weight, port and host.
    Service(u16, u16, u16, &'static str),
}

/// What a name is answered with.
#[derive(Clone)]
enum Answer {
    /// These records, which may be used for so many seconds.
    Records(u32, Vec<Record>),
    /// The server fails.
    Fails,
    /// It does not answer.
    Silent,
}

/// What it knows, and the questions that it was asked.
#[derive(Default)]
struct Zone {
    names: HashMap<String, Answer>,
    asked: Vec<String>,
}

/// A name server.
pub(crate) struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    threads: Vec<JoinHandle<()>>,
}

impl NameServer {
    /// Begins to serve.
    pub(crate) fn open() -> NameServer {
        let (socket, listener) = sockets();
        let address = socket.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(Zone::default()));
        let [of_udp, of_tcp] = [Arc::clone(&zone), Arc::clone(&zone)];
        let udp = std::thread::spawn(move || serve(&socket, &of_udp));
        let tcp = std::thread::spawn(move || serve_tcp(&listener, &of_tcp));
        NameServer { address, zone, threads: vec![udp, tcp] }
    }

    /// Where it is asked.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn set(&self, name: &str, answer: Option<Answer>) {
        let names = &mut self.zone.lock().unwrap().names;
        match answer {
            Some(answer) => names.insert(name.to_owned(), answer),
            None => names.remove(name),
        };
    }

    /// From now on the name has these records, for so many seconds.
    pub(crate) fn says(&self, name: &str, seconds: u32, records: Vec<Record>) {
        self.set(name, Some(Answer::Records(seconds, records)));
    }

    /// From now on there is no such name.
    pub(crate) fn forgets(&self, name: &str) {
        self.set(name, None);
    }

    /// From now on it fails when asked for the name.
    pub(crate) fn fails(&self, name: &str) {
        self.set(name, Some(Answer::Fails));
    }

    /// From now on it does not answer when asked for the name.
    pub(crate) fn is_silent_about(&self, name: &str) {
        self.set(name, Some(Answer::Silent));
    }

    /// The names that it was asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.zone.lock().unwrap().asked.clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        // What is no question ends it.
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.send_to(&[], self.address).unwrap();
        TcpStream::connect(self.address).unwrap().write_all(&[0, 0]).unwrap();
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// One of each kind, with one port.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()) {
            return (socket, listener);
        }
    }
}

fn serve(socket: &UdpSocket, zone: &Mutex<Zone>) {
    let mut buffer = [0; 1024];
    while let Ok((length, from)) = socket.recv_from(&mut buffer)
        && length > 0
    {
        let Some((mut answer, end)) = answer(&buffer[..length], zone) else { continue };
        if answer.len() > UDP_MAX {
            // Ask again over TCP (RFC 1035 §4.2.1).
            answer.truncate(end);
            answer[2] |= 2;
            answer[6..8].fill(0);
        }
        let _ = socket.send_to(&answer, from);
    }
}

/// One question for each connection.
fn serve_tcp(listener: &TcpListener, zone: &Mutex<Zone>) {
    for stream in listener.incoming() {
        let (mut stream, mut length) = (stream.unwrap(), [0; 2]);
        if stream.read_exact(&mut length).is_err() {
            continue;
        }
        let mut question = vec![0; u16::from_be_bytes(length).into()];
        if question.is_empty() {
            return;
        }
        if stream.read_exact(&mut question).is_ok()
            && let Some((answer, _)) = answer(&question, zone)
        {
            let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
            let _ = stream.write_all(&[&length, &*answer].concat());
        }
    }
}

/// The answer to a question, and where the question ends in it.
fn answer(question: &[u8], zone: &Mutex<Zone>) -> Option<(Vec<u8>, usize)> {
    let (name, end) = name_in(question)?;
    let known = {
        let mut zone = zone.lock().unwrap();
        zone.asked.push(name.clone());
        zone.names.get(&name).cloned()
    };
    Some((answered(question, end, known)?, end))
}

/// The name of a question in lower case, and where the question ends (RFC 1035 §4.1.2).
fn name_in(question: &[u8]) -> Option<(String, usize)> {
    let (mut labels, mut at) = (Vec::new(), 12);
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = question.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
    question.get(at..at + 4)?;
    Some((labels.join("."), at + 4))
}

/// The answer to a question that ends there; none is an answer that there is no such name.
fn answered(question: &[u8], end: usize, answer: Option<Answer>) -> Option<Vec<u8>> {
    let (code, seconds, records) = match answer {
        None => (3, 0, Vec::new()),
        Some(Answer::Fails) => (2, 0, Vec::new()),
        Some(Answer::Silent) => return None,
        Some(Answer::Records(seconds, records)) => (0, seconds, records),
    };
    let kind = u16::from_be_bytes([question[end - 4], question[end - 3]]);
    let data: Vec<Vec<u8>> = records.iter().filter_map(|record| data(kind, record)).collect();
    let count = u16::try_from(data.len()).unwrap();
    let mut message = question[..2].to_vec();
    // An answer of one who is asked for recursion and has it.
    message.extend([0x81, 0x80 | code, 0, 1]);
    message.extend(count.to_be_bytes());
    message.extend([0; 4]);
    message.extend(&question[12..end]);
    for data in data {
        // The name of the question, and its class.
        message.extend([0xc0, 12]);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message.extend(seconds.to_be_bytes());
        message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        message.extend(data);
    }
    Some(message)
}

/// What a record says to a question of this kind.
fn data(kind: u16, record: &Record) -> Option<Vec<u8>> {
    match (kind, record) {
        (1, Record::Host(IpAddr::V4(address))) => Some(address.octets().to_vec()),
        (28, Record::Host(IpAddr::V6(address))) => Some(address.octets().to_vec()),
        (33, Record::Service(priority, weight, port, host)) => {
            let numbers = [priority, weight, port].into_iter().flat_map(|it| it.to_be_bytes());
            let mut data: Vec<u8> = numbers.collect();
            for label in host.split('.') {
                data.push(u8::try_from(label.len()).unwrap());
                data.extend(label.as_bytes());
            }
            data.push(0);
            Some(data)
        }
        _ => None,
    }
}
