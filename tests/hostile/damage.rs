//! Ways to damage a region.

use super::ground::{Ground, HEAD, SECTIONS, WORD};
use super::source::Source;

/// How far a word that says something is looked for, bytes.
const NEAR: u64 = 1 << 15;

/// Damages a region once, in a way of the source's choice. Words that say something are preferred: most of
/// a region is zeroes.
pub fn once(ground: &Ground, source: &mut Source<'_>) {
    let at = place(ground, source);
    match source.byte() % 12 {
        0..3 => ground.put(at, ground.word(at) ^ 1 << (source.byte() % 64)),
        3 => ground.put(at, u64::MAX),
        4 => ground.put(at, 0),
        5 => ground.put(at, source.word()),
        6 => ground.put(at, source.number()),
        7 => ground.put(at, ground.word(at).wrapping_add(source.number())),
        8 => {
            let other = place(ground, source);
            let (one, two) = (ground.word(at), ground.word(other));
            ground.put(at, two);
            ground.put(other, one);
        }
        9 => ground.put(at, ground.word(place(ground, source))),
        10 => copy_record(ground, source),
        _ => copy_across(ground, source),
    }
}

fn place(ground: &Ground, source: &mut Source<'_>) -> u64 {
    let id = source.one_of(&SECTIONS);
    place_in(ground, id, source)
}

/// Offset of a word of the section: one that says something if there is one not far behind the place chosen,
/// or any word of its record.
fn place_in(ground: &Ground, id: u64, source: &mut Source<'_>) -> u64 {
    let (offset, stride, count) = ground.section(id);
    let len = stride * count;
    let start = source.below(usize::try_from(len / WORD).expect("small")) as u64 * WORD;
    let near = ground.read(offset + start, NEAR.min(len - start));
    let said = near.chunks(8).position(|word| word != [0; 8]).unwrap_or(0) as u64;
    let met = start + said * WORD;
    if source.byte().is_multiple_of(2) {
        return offset + met;
    }
    let field = source.below(usize::try_from(stride / WORD).expect("small")) as u64;
    offset + met / stride * stride + field * WORD
}

/// A whole record to another place of its section: a stale copy.
fn copy_record(ground: &Ground, source: &mut Source<'_>) {
    let id = source.one_of(&SECTIONS);
    let (offset, stride, count) = ground.section(id);
    let count = usize::try_from(count).expect("small");
    let from = place_in(ground, id, source);
    let from = offset + (from - offset) / stride * stride;
    let to = ground.at(id, source.below(count));
    ground.put_bytes(to, &ground.read(from, stride));
}

/// Eight words of one section to another.
fn copy_across(ground: &Ground, source: &mut Source<'_>) {
    let (from, to) = (place(ground, source), place(ground, source));
    let (from, to) = (from & !63, to & !63);
    for field in (0..64).step_by(8) {
        ground.put(to + field, ground.word(from + field));
    }
}

/// Every word behind the header at random; of the places `kept`, what was there before.
pub fn scramble(ground: &Ground, source: &mut Source<'_>, kept: &[u64]) {
    let before: Vec<(u64, u64)> = kept.iter().map(|&at| (at, ground.word(at))).collect();
    let words = (ground.len() - HEAD) / WORD;
    let bytes: Vec<u8> = (0..words).flat_map(|_| source.word().to_le_bytes()).collect();
    ground.put_bytes(HEAD, &bytes);
    for (at, value) in before {
        ground.put(at, value);
    }
}

/// Places of the first words of all records that are in use: where keys stand.
pub fn identities(ground: &Ground) -> Vec<u64> {
    use fast_litellm::layout::section::{BOARD, BUCKETS, DEPLOYMENTS, JOBS, LEASES, SERIES};
    let mut places = Vec::new();
    for id in [BUCKETS, LEASES, DEPLOYMENTS, SERIES, JOBS, BOARD] {
        let (offset, stride, count) = ground.section(id);
        places.extend((0..count).map(|record| offset + record * stride));
    }
    places.retain(|&at| ground.word(at) != 0);
    places
}
