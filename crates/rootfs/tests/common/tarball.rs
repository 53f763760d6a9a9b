//! Tar streams made byte by byte, so that they can say anything.

/// A tar under construction.
#[derive(Clone, Default)]
pub struct Tarball(Vec<u8>);

/// A header block to change before it is added.
#[derive(Clone)]
pub struct Header([u8; 512]);

impl Header {
    pub fn new(name: impl AsRef<[u8]>, kind: u8) -> Header {
        let mut header = Header([0; 512]);
        header.put(257, b"ustar\x0000");
        header.put(100, if kind == b'5' { b"0000755" } else { b"0000644" });
        for field in [108, 116] {
            header.put(field, b"0000000");
        }
        header.put(124, b"00000000000");
        header.put(136, b"13602457000");
        header.0[156] = kind;
        let name = name.as_ref();
        header.put(0, &name[..name.len().min(100)]);
        header
    }

    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn with(mut self, at: usize, bytes: impl AsRef<[u8]>) -> Header {
        self.put(at, bytes.as_ref());
        self
    }

    pub fn size(self, size: u64) -> Header {
        self.with(124, format!("{size:011o}"))
    }

    fn sealed(mut self) -> [u8; 512] {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

impl Tarball {
    pub fn new() -> Tarball {
        Tarball::default()
    }

    pub fn header(mut self, header: Header) -> Tarball {
        self.0.extend(header.sealed());
        self
    }

    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Tarball {
        self.0.extend(bytes.as_ref());
        self
    }

    /// Content with its padding.
    pub fn content(mut self, bytes: impl AsRef<[u8]>) -> Tarball {
        self.0.extend(bytes.as_ref());
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: impl AsRef<[u8]>, text: impl AsRef<[u8]>) -> Tarball {
        let size = text.as_ref().len() as u64;
        self.header(Header::new(name, b'0').size(size)).content(text)
    }

    pub fn dir(self, name: impl AsRef<[u8]>) -> Tarball {
        self.header(Header::new(name, b'5'))
    }

    pub fn link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tarball {
        self.header(Header::new(name, b'2').with(157, target))
    }

    pub fn hard(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tarball {
        self.header(Header::new(name, b'1').with(157, target))
    }

    /// An extended header for the entry that follows.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Tarball {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..).find(|length| length.to_string().len() + rest == *length).unwrap();
            text.extend(format!("{length} {key}=").into_bytes());
            text.extend(*value);
            text.push(b'\n');
        }
        self.header(Header::new("PaxHeaders/x", b'x').size(text.len() as u64)).content(text)
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }

    /// Without the end of the archive.
    pub fn bytes(self) -> Vec<u8> {
        self.0
    }
}
