//! The public surface of `bastide-net` against servers and proxies on loopback, which say what a test
//! tells them to say, byte by byte. Expected bytes are literals. The real proxy is in `tinyproxy`.

#[cfg(test)]
mod dial;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod send;
#[cfg(test)]
mod spare;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tinyproxy;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod upgrade;
