//! The shapes of requests: which fields a version has. With them a request is walked through before anybody makes room for
//! what it declares.

use crate::codec::{Malformed, Reader};

/// A field, and the versions that have it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    kind: Kind,
    from: i16,
    to: i16,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Fixed(usize),
    Text,
    Bytes,
    /// A structure, which has tagged fields of its own.
    #[cfg(any(feature = "client", test))]
    Structure(&'static [Field]),
    /// The same, or nothing.
    #[cfg(any(feature = "client", test))]
    Optional(&'static [Field]),
    /// Of structures, which have tagged fields of their own.
    Structures(&'static [Field]),
    /// Of single fields.
    Values(&'static Field),
}

impl Field {
    pub(crate) const BOOL: Field = Field::always(Kind::Fixed(1));
    pub(crate) const I8: Field = Field::always(Kind::Fixed(1));
    pub(crate) const I16: Field = Field::always(Kind::Fixed(2));
    pub(crate) const I32: Field = Field::always(Kind::Fixed(4));
    pub(crate) const I64: Field = Field::always(Kind::Fixed(8));
    pub(crate) const UUID: Field = Field::always(Kind::Fixed(16));
    pub(crate) const TEXT: Field = Field::always(Kind::Text);
    pub(crate) const BYTES: Field = Field::always(Kind::Bytes);

    const fn always(kind: Kind) -> Field {
        Field { kind, from: 0, to: i16::MAX }
    }

    /// A structure.
    #[cfg(any(feature = "client", test))]
    pub(crate) const fn structure(fields: &'static [Field]) -> Field {
        Field::always(Kind::Structure(fields))
    }

    /// A structure that may be null: a byte says so.
    #[cfg(any(feature = "client", test))]
    pub(crate) const fn optional(fields: &'static [Field]) -> Field {
        Field::always(Kind::Optional(fields))
    }

    /// An array of structures.
    pub(crate) const fn array(fields: &'static [Field]) -> Field {
        Field::always(Kind::Structures(fields))
    }

    /// An array of single fields.
    pub(crate) const fn values(field: &'static Field) -> Field {
        Field::always(Kind::Values(field))
    }

    /// The same, from this version on.
    pub(crate) const fn from(self, version: i16) -> Field {
        Field { from: version, ..self }
    }

    /// The same, up to this version.
    pub(crate) const fn to(self, version: i16) -> Field {
        Field { to: version, ..self }
    }

    fn walk(&self, version: i16, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        if version < self.from || version > self.to {
            return Ok(());
        }
        match self.kind {
            Kind::Fixed(bytes) => reader.take(bytes).map(drop),
            Kind::Text => reader.nullable_text().map(drop),
            Kind::Bytes => reader.bytes().map(drop),
            #[cfg(any(feature = "client", test))]
            Kind::Structure(fields) => walk_structure(fields, version, reader),
            #[cfg(any(feature = "client", test))]
            Kind::Optional(fields) => match reader.take(1)? {
                [0xff] => Ok(()),
                _ => walk_structure(fields, version, reader),
            },
            Kind::Structures(fields) => {
                for _ in 0..reader.count()?.unwrap_or(0) {
                    walk_structure(fields, version, reader)?;
                }
                Ok(())
            }
            Kind::Values(field) => {
                for _ in 0..reader.count()?.unwrap_or(0) {
                    field.walk(version, reader)?;
                }
                Ok(())
            }
        }
    }
}

fn walk_structure(fields: &[Field], version: i16, reader: &mut Reader<'_>) -> Result<(), Malformed> {
    fields.iter().try_for_each(|field| field.walk(version, reader))?;
    reader.tags()
}

/// Walks through a request of these fields. Answers what lies behind the last.
pub(crate) fn walk<'a>(fields: &[Field], version: i16, mut reader: Reader<'a>) -> Result<Reader<'a>, Malformed> {
    walk_structure(fields, version, &mut reader)?;
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[Field] = &[Field::array(&[Field::TEXT, Field::I64.from(2)]), Field::values(&Field::I32).to(1)];

    fn walked(bytes: &[u8], version: i16, is_flexible: bool) -> Result<(), Malformed> {
        walk(FIELDS, version, Reader::new(bytes, is_flexible))?.end()
    }

    #[test]
    fn fields_are_there_in_their_versions_only() {
        let old = [0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 6];
        assert_eq!(walked(&old, 1, false), Ok(()));
        let new = [0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 9];
        assert_eq!(walked(&new, 2, false), Ok(()));
        assert_eq!(walked(&new, 1, false), Err(Malformed::Trailing(4)));
        let flexible = [2, 2, b'a', 0, 0, 0, 0, 0, 0, 0, 9, 0, 0];
        assert_eq!(walked(&flexible, 2, true), Ok(()));
    }

    #[test]
    fn what_declares_more_than_it_has_is_refused() {
        assert_eq!(walked(&[0x7f, 0xff, 0xff, 0xff, 0, 0], 2, false), Err(Malformed::Length));
        assert_eq!(walked(&[0, 0, 0, 2, 0, 1, b'a'], 1, false), Err(Malformed::Short));
        assert_eq!(walked(&[0, 0, 0, 0, 0, 0, 0, 0, 7], 1, false), Err(Malformed::Trailing(1)));
    }
}
