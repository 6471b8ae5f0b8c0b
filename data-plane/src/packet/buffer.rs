//! A packet in the middle of a buffer, so that headers come and go without a copy.

/// Bytes of a packet with room before and behind them, over a frame or any other buffer.
pub struct PacketBuf<'a> {
    bytes: &'a mut [u8],
    start: usize,
    end: usize,
}

impl<'a> PacketBuf<'a> {
    /// The packet of `len` bytes at `start`; `None` if it would leave the buffer.
    pub fn new(bytes: &'a mut [u8], start: usize, len: usize) -> Option<Self> {
        let end = start.checked_add(len).filter(|end| *end <= bytes.len())?;
        Some(Self { bytes, start, end })
    }

    /// The packet.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The packet, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// Length of the packet.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// True if nothing is left of the packet.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Where in its buffer the packet lies.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.start..self.end
    }

    /// Bytes free before the packet.
    pub fn headroom(&self) -> usize {
        self.start
    }

    /// Bytes free behind the packet.
    pub fn tailroom(&self) -> usize {
        self.bytes.len() - self.end
    }

    /// Grows the packet by `n` bytes at its front and returns them; `None` if there is no room.
    pub fn push_front(&mut self, n: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(n)?;
        Some(&mut self.bytes[self.start..self.start + n])
    }

    /// Grows the packet by `n` bytes at its end and returns them; `None` if there is no room.
    pub fn push_back(&mut self, n: usize) -> Option<&mut [u8]> {
        let end = self.end.checked_add(n).filter(|end| *end <= self.bytes.len())?;
        let old = std::mem::replace(&mut self.end, end);
        Some(&mut self.bytes[old..end])
    }

    /// Cuts `n` bytes off the front; false, and nothing done, if the packet is shorter.
    #[must_use]
    pub fn pop_front(&mut self, n: usize) -> bool {
        let enough = n <= self.len();
        self.start += if enough { n } else { 0 };
        enough
    }

    /// Cuts the packet down to its first `len` bytes; a longer `len` changes nothing.
    pub fn truncate(&mut self, len: usize) {
        self.end = self.end.min(self.start + len);
    }

    /// The whole buffer and where the packet lies in it, for those that work on both.
    pub fn parts_mut(&mut self) -> (&mut [u8], std::ops::Range<usize>) {
        (self.bytes, self.start..self.end)
    }

    /// Moves the bounds of the packet to `range` of the buffer; false, and nothing done, if it is none.
    #[must_use]
    pub fn set_range(&mut self, range: std::ops::Range<usize>) -> bool {
        let valid = range.start <= range.end && range.end <= self.bytes.len();
        if valid {
            (self.start, self.end) = (range.start, range.end);
        }
        valid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_and_go_in_place() {
        let mut bytes = [0u8; 32];
        bytes[10..14].copy_from_slice(b"data");
        let mut packet = PacketBuf::new(&mut bytes, 10, 4).unwrap();
        packet.push_front(2).unwrap().copy_from_slice(b"<<");
        packet.push_back(2).unwrap().copy_from_slice(b">>");
        assert_eq!(packet.bytes(), b"<<data>>");
        assert!(packet.pop_front(2));
        packet.truncate(4);
        assert_eq!(packet.bytes(), b"data");
    }

    #[test]
    fn no_operation_leaves_the_buffer() {
        let mut bytes = [0u8; 8];
        assert!(PacketBuf::new(&mut bytes, 4, 5).is_none());
        assert!(PacketBuf::new(&mut bytes, usize::MAX, 2).is_none());
        let mut packet = PacketBuf::new(&mut bytes, 2, 4).unwrap();
        assert!(packet.push_front(3).is_none() && packet.push_back(3).is_none());
        assert!(packet.push_back(usize::MAX).is_none() && !packet.pop_front(5));
        assert!(!packet.set_range(7..9));
        assert_eq!((packet.len(), packet.headroom(), packet.tailroom()), (4, 2, 2));
    }
}
