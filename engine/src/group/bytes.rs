//! The bytes of records of groups: big-endian, as Kafka's.

/// A record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It ends early, or is no text where one should be.
    #[error("a record of groups is cut short or garbled")]
    Malformed,
    /// A newer program wrote it.
    #[error("a record of groups has version {0}, which this program does not know")]
    UnknownVersion(i16),
}

/// What is written, from its beginning.
pub(super) struct Out(pub(super) Vec<u8>);

impl Out {
    pub(super) fn i16(mut self, value: i16) -> Out {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn i32(mut self, value: i32) -> Out {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn i64(mut self, value: i64) -> Out {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A text of at most 32,767 bytes: who asks is held to that.
    pub(super) fn text(self, text: &str) -> Out {
        assert!(text.len() <= i16::MAX as usize, "texts are bounded before they are kept");
        let mut out = self.i16(text.len() as i16);
        out.0.extend(text.as_bytes());
        out
    }

    pub(super) fn nullable(self, text: Option<&str>) -> Out {
        match text {
            Some(text) => self.text(text),
            None => self.i16(-1),
        }
    }

    pub(super) fn bytes(self, bytes: &[u8]) -> Out {
        let mut out = self.i32(bytes.len() as i32);
        out.0.extend(bytes);
        out
    }
}

/// The compact forms of Kafka's flexible versions: lengths are varints, one more than they say, nothing for null.
impl Out {
    pub(super) fn i8(mut self, value: i8) -> Out {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn uuid(mut self, id: u128) -> Out {
        self.0.extend(id.to_be_bytes());
        self
    }

    pub(super) fn varint(mut self, mut value: u32) -> Out {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    pub(super) fn count(self, count: usize) -> Out {
        self.varint(count as u32 + 1)
    }

    pub(super) fn compact(self, text: &str) -> Out {
        let mut out = self.count(text.len());
        out.0.extend(text.as_bytes());
        out
    }

    pub(super) fn compact_nullable(self, text: Option<&str>) -> Out {
        match text {
            Some(text) => self.compact(text),
            None => self.varint(0),
        }
    }

    pub(super) fn no_tags(self) -> Out {
        self.varint(0)
    }
}

/// What is still to be read.
pub(super) struct In<'a>(pub(super) &'a [u8]);

impl<'a> In<'a> {
    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(RecordError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(RecordError::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn i16(&mut self) -> Result<i16, RecordError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, RecordError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, RecordError> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn nullable(&mut self) -> Result<Option<String>, RecordError> {
        let length = self.i16()?;
        if length == -1 {
            return Ok(None);
        }
        let bytes = self.take(usize::try_from(length).map_err(|_| RecordError::Malformed)?)?;
        String::from_utf8(bytes.to_vec()).map(Some).map_err(|_| RecordError::Malformed)
    }

    pub(super) fn text(&mut self) -> Result<String, RecordError> {
        self.nullable()?.ok_or(RecordError::Malformed)
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, RecordError> {
        let length = usize::try_from(self.i32()?).map_err(|_| RecordError::Malformed)?;
        self.take(length).map(<[u8]>::to_vec)
    }

    pub(super) fn version(&mut self, known: i16) -> Result<(), RecordError> {
        match self.i16()? {
            version if version == known => Ok(()),
            version => Err(RecordError::UnknownVersion(version)),
        }
    }

    pub(super) fn end(self) -> Result<(), RecordError> {
        if self.0.is_empty() { Ok(()) } else { Err(RecordError::Malformed) }
    }
}

impl In<'_> {
    pub(super) fn i8(&mut self) -> Result<i8, RecordError> {
        self.array().map(i8::from_be_bytes)
    }

    pub(super) fn uuid(&mut self) -> Result<u128, RecordError> {
        self.array().map(u128::from_be_bytes)
    }

    pub(super) fn varint(&mut self) -> Result<u32, RecordError> {
        let mut value = 0u32;
        for shift in (0..32).step_by(7) {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            value |=
                bits.checked_shl(shift).filter(|shifted| shifted >> shift == bits).ok_or(RecordError::Malformed)?;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(RecordError::Malformed)
    }

    pub(super) fn count(&mut self) -> Result<u32, RecordError> {
        self.varint()?.checked_sub(1).ok_or(RecordError::Malformed)
    }

    pub(super) fn compact_nullable(&mut self) -> Result<Option<String>, RecordError> {
        let Some(length) = self.varint()?.checked_sub(1) else { return Ok(None) };
        let bytes = self.take(length as usize)?;
        String::from_utf8(bytes.to_vec()).map(Some).map_err(|_| RecordError::Malformed)
    }

    pub(super) fn compact(&mut self) -> Result<String, RecordError> {
        self.compact_nullable()?.ok_or(RecordError::Malformed)
    }

    /// Fields that a later program may have added are passed over.
    pub(super) fn tags(&mut self) -> Result<(), RecordError> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.take(length as usize)?;
        }
        Ok(())
    }
}
