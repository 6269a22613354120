//! One end of an interface that a program serves: frames the kernel sends on it are read here, frames written here arrive on
//! it. Calls without a safe name are made here, once per interface.
//!
//! A crate for such devices brings addresses, routes and other systems along, which `ip` does for us; what would be left of
//! it is one ioctl.
#![expect(
    unsafe_code,
    reason = "naming the interface of an opened /dev/net/tun is an ioctl, and that is a C interface"
)]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
};

use tokio::io::unix::AsyncFd;

/// Where the kernel hands out such ends.
pub(super) const DEVICE: &str = "/dev/net/tun";

/// An opened end.
#[derive(Debug)]
pub(super) struct Tap(AsyncFd<File>);

impl Tap {
    /// Takes the end of the TAP interface `name` of the network namespace this process is in. Inside a runtime.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        // The kernel would make one that is not there, wherever this process happens to be.
        let interfaces = fs::read_to_string("/proc/self/net/dev")?;
        if !interfaces.lines().any(|line| line.trim_start().split(':').next() == Some(name)) {
            return Err(io::Error::other("there is no such interface"));
        }
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE)?;
        // SAFETY: all fields of `ifreq` are integers, arrays of them, or a pointer that may be null: zeroes are a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // One byte less than there is, so that the name ends with a zero.
        if name.len() >= request.ifr_name.len() {
            return Err(io::Error::other(format!("the interface name {name} is too long")));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        // Whole frames, nothing in front of them.
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the descriptor is open, and TUNSETIFF reads and writes one `ifreq`, which `request` is.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a `File` keeps its descriptor open and the same until it is dropped, and nobody takes it out of there.
        Ok(Self(unsafe { AsyncFd::register(file)? }))
    }

    /// Waits for the next frame, cut to the room that is there.
    pub(super) async fn receive(&self, frame: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|file| file.get_ref().read(frame)) {
                Ok(received) => return received,
                // Nothing there after all.
                Err(_would_block) => {}
            }
        }
    }

    /// Sends one whole frame now, or says why the interface does not take it.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let mut file = self.0.get_ref();
        match file.write(frame)? {
            taken if taken == frame.len() => Ok(()),
            taken => Err(io::Error::other(format!("{taken} of {} bytes taken", frame.len()))),
        }
    }
}
