//! Plays of bodies that come in pieces with pauses between them: each piece leaves as it comes.
//!
//! The kernel holds back a segment that is not full for 200 ms if it was told that more follows.
//! Pieces are sent on cues, one by one, so that each must arrive before the next is sent: of few
//! bytes, of less than a segment and of more (on loopback a segment has 65,483 bytes), of more than
//! one read.

use std::time::Duration;

use crate::{
    backend::{Cue, plays},
    client::get,
    pace::Watch,
    scripts::chunk,
    stage::{Driver, Stage, eventually},
};

on_both_drivers!(each_piece_of_an_answer_leaves_as_it_comes, a_request_leaves_as_it_comes);

const SIZES: [usize; 6] = [1, 100, 4_000, 65_483, 70_000, 200_000];

/// Less than the time for which the kernel holds back a segment.
const AT_ONCE: Duration = Duration::from_millis(150);

fn piece(framing: &str, size: usize) -> String {
    let piece = "a".repeat(size);
    if framing.ends_with("chunked") { chunk(piece) } else { piece }
}

fn each_piece_of_an_answer_leaves_as_it_comes(driver: Driver) {
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked", "Connection: close"] {
        let cues: [Cue; SIZES.len()] = std::array::from_fn(|_| Cue::default());
        let pieces = plays({
            let cues = cues.clone();
            move |visit| {
                visit.request()?;
                visit.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n"))?;
                for (size, cue) in SIZES.iter().zip(&cues) {
                    visit.wait_for(cue)?;
                    visit.send(piece(framing, *size))?;
                }
                visit.drain()
            }
        });
        let stage = Stage::on(driver).backend(pieces).start();
        let mut client = stage.connect();
        let chunked = client.send(get("/")).response_head("GET").unwrap().head;
        let chunked = chunked.lists("transfer-encoding", "chunked");
        for (size, cue) in SIZES.iter().zip(&cues) {
            let watch = Watch::start();
            cue.give();
            let mut left = *size;
            while left > 0 {
                left -= if chunked {
                    client.wire().chunk().unwrap().len()
                } else {
                    client.wire().bytes(left).unwrap().len()
                };
            }
            println!("{size} bytes, {framing}");
            watch.took().expect_at_most(AT_ONCE);
        }
        client.reset();
    }
}

fn a_request_leaves_as_it_comes(driver: Driver) {
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let stage =
            Stage::on(driver).backend(plays(|visit| visit.head().and(visit.drain()))).start();
        let mut client = stage.connect();
        let head = format!("POST / HTTP/1.1\r\nHost: play.test\r\n{framing}\r\n\r\n");
        // The first bytes of a frame come with the head, and nothing of the body.
        let first = piece(framing, SIZES[0]);
        let (begun, mut rest) = first.split_at(first.len().min(2) - 1);
        let watch = Watch::start();
        client.send([&head, begun].concat());
        eventually("the head is there", || stage.backend(0).heads().len(), |heads| *heads == 1);
        watch.took().expect_at_most(AT_ONCE);
        let mut expected = stage.backend(0).heard().len();
        for size in SIZES {
            let piece = piece(framing, size);
            expected += size;
            let watch = Watch::start();
            client.send(if rest.is_empty() { &piece } else { rest });
            rest = "";
            let heard = || stage.backend(0).heard().len();
            eventually("it arrives", heard, |heard| *heard >= expected);
            println!("{size} bytes, {framing}");
            watch.took().expect_at_most(AT_ONCE);
        }
    }
}
