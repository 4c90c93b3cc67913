//! HPACK (RFC 7541): the compressed form of fields in HTTP/2.
//!
//! Reading takes all of it: static and dynamic table, Huffman codes. Writing takes the static table
//! only: what we send needs no state, so it can be composed at any time and in any order, and no
//! setting of a peer has a meaning for it. No input makes it panic; what a peer can make us keep is
//! one dynamic table.

mod decode;
mod encode;
mod huffman;
mod table;

pub(crate) use self::{
    decode::{Decoder, Unreadable},
    encode::{NO_TABLE, Pseudo, field, length, pseudo, status},
};
