//! A web server of the test, which answers as badly as the test wants.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// How a request is answered.
#[derive(Clone)]
pub enum Answer {
    /// With the content, or the part of it that was asked for.
    Content(Arc<Vec<u8>>),
    /// With the content, whatever part was asked for.
    Whole(Arc<Vec<u8>>),
    /// As [`Answer::Content`], and the connection is closed after so many bytes.
    Cut(Arc<Vec<u8>>, usize),
    /// As [`Answer::Cut`], and the connection stays open.
    Stall(Arc<Vec<u8>>, usize),
    /// With these bytes.
    Raw(Vec<u8>),
}

impl Answer {
    /// A head without content.
    pub fn head(lines: &str) -> Self {
        Self::Raw(format!("HTTP/1.1 {lines}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes())
    }
}

struct Shared {
    answer: Mutex<Answer>,
    /// Path and Range of each request.
    seen: Mutex<Vec<(String, Option<String>)>>,
    /// Connections that are kept open.
    open: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

/// The server. It ends with the test.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer),
            seen: Mutex::default(),
            open: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming() {
                    if shared.ended.load(Ordering::SeqCst) {
                        break;
                    }
                    // A client that has gone is its own matter.
                    let _ = answer_one(&shared, stream.unwrap());
                }
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// URL of the server, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers so from now on.
    pub fn answer(&self, answer: Answer) {
        *self.shared.answer.lock().unwrap() = answer;
    }

    /// Path and Range of each request since the last time.
    pub fn requests(&self) -> Vec<(String, Option<String>)> {
        std::mem::take(&mut self.shared.seen.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
    }
}

fn answer_one(shared: &Shared, mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let mut range = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("Range: ") {
            range = Some(value.to_owned());
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    shared.seen.lock().unwrap().push((path, range.clone()));
    let answer = shared.answer.lock().unwrap().clone();
    let (content, limit) = match &answer {
        Answer::Raw(bytes) => return stream.write_all(bytes),
        Answer::Whole(content) => {
            range = None;
            (content, usize::MAX)
        }
        Answer::Content(content) => (content, usize::MAX),
        Answer::Cut(content, limit) | Answer::Stall(content, limit) => (content, *limit),
    };
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let (len, start, status) = (content.len(), start.unwrap_or(0), if start.is_some() { "206 Part" } else { "200 OK" });
    if start >= len {
        return stream
            .write_all(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", len - start);
    if status.starts_with("206") {
        head += &format!("Content-Range: bytes {start}-{}/{len}\r\n", len - 1);
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(&content[start..][..limit.min(len - start)])?;
    if let Answer::Stall(..) = answer {
        shared.open.lock().unwrap().push(stream);
    }
    Ok(())
}
