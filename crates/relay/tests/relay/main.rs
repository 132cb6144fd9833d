//! The relay against a scripted service over TLS on loopback: what it says on the wire, and that every token is
//! given back whatever happens. It leaves out what the bytes of a connection go through, which the tests beside
//! the session and the pump look at.

#[cfg(test)]
mod bench;
#[cfg(test)]
mod opening;
#[cfg(test)]
mod ready;
#[cfg(test)]
mod releasing;
#[cfg(test)]
mod service;
