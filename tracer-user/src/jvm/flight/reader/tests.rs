//! Recordings that were put together by hand, and those of real JVMs.

use super::*;

/// A number in seven bits a byte, padded to four bytes where it is a size.
fn number(mut value: u64, bytes: &mut Vec<u8>) {
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        bytes.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return;
        }
    }
}

fn numbers(values: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::new();
    values.iter().for_each(|value| number(*value, &mut bytes));
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&[3][..], &numbers(&[text.len() as u64]), text.as_bytes()].concat()
}

/// An event with its size in front.
fn event(kind: u64, content: &[u8]) -> Vec<u8> {
    let mut size = (content.len() + numbers(&[kind]).len() + 4) as u64;
    let mut bytes: Vec<u8> = (0..4)
        .map(|at| {
            let low = (size & 0x7f) as u8;
            size >>= 7;
            if at < 3 { low | 0x80 } else { low }
        })
        .collect();
    number(kind, &mut bytes);
    bytes.extend_from_slice(content);
    bytes
}

/// Types: number, name, fields with their type's number and whether they are pooled.
type Described<'a> = (u64, &'a str, &'a [(&'a str, u64, bool)]);

const LONG: u64 = 1;
const TEXT: u64 = 2;
const CLASS: u64 = 3;
const OBJECT: u64 = 4;
const REFERENCE: u64 = 5;
const FIELD: u64 = 6;
const ARRAY: u64 = 7;
const ROOT: u64 = 8;
const SYSTEM: u64 = 9;
const SAMPLE: u64 = 10;
const NOTHING: u64 = 11;

const TYPES: &[Described<'static>] = &[
    (LONG, "long", &[]),
    (TEXT, "java.lang.String", &[]),
    (CLASS, "java.lang.Class", &[("name", TEXT, false)]),
    (
        OBJECT,
        "jdk.types.OldObject",
        &[
            ("type", CLASS, true),
            ("description", TEXT, false),
            ("referrer", REFERENCE, true),
        ],
    ),
    (
        REFERENCE,
        "jdk.types.Reference",
        &[
            ("array", ARRAY, true),
            ("field", FIELD, true),
            ("object", OBJECT, true),
            ("skip", LONG, false),
        ],
    ),
    (
        FIELD,
        "jdk.types.OldObjectField",
        &[("name", TEXT, false), ("modifiers", LONG, false)],
    ),
    (ARRAY, "jdk.types.OldObjectArray", &[("size", LONG, false)]),
    (
        ROOT,
        "jdk.types.OldObjectGcRoot",
        &[
            ("description", TEXT, false),
            ("system", SYSTEM, true),
            ("type", SYSTEM, true),
        ],
    ),
    (
        SYSTEM,
        "jdk.types.OldObjectRootSystem",
        &[("system", TEXT, false)],
    ),
    (
        SAMPLE,
        EVENT,
        &[
            ("startTime", LONG, false),
            ("object", OBJECT, true),
            ("root", ROOT, true),
        ],
    ),
    (NOTHING, "jdk.types.Nothing", &[]),
];

/// The event that describes types.
fn metadata(types: &[Described<'_>]) -> Vec<u8> {
    let mut texts: Vec<String> = Vec::new();
    let mut index = |text: &str| match texts.iter().position(|it| it == text) {
        Some(at) => at as u64,
        None => {
            texts.push(text.to_owned());
            texts.len() as u64 - 1
        }
    };
    let mut tree = numbers(&[
        index("root"),
        0,
        1,
        index("metadata"),
        0,
        types.len() as u64,
    ]);
    for (id, name, fields) in types {
        let class = [
            index("class"),
            2,
            index("id"),
            index(&id.to_string()),
            index("name"),
            index(name),
            fields.len() as u64,
        ];
        tree.extend(numbers(&class));
        for (name, of, is_pooled) in *fields {
            let pooled = if *is_pooled { "true" } else { "false" };
            let field = [
                index("field"),
                3,
                index("name"),
                index(name),
                index("class"),
                index(&of.to_string()),
                index("constantPool"),
                index(pooled),
                0,
            ];
            tree.extend(numbers(&field));
        }
    }
    let mut content = numbers(&[0, 0, 1, texts.len() as u64]);
    texts.iter().for_each(|it| content.extend(text(it)));
    content.extend(tree);
    event(0, &content)
}

/// A value and its number.
type Entry = (u64, Vec<u8>);

/// The event that has pools: of each type, keys with their values.
fn pools(pools: &[(u64, Vec<Entry>)]) -> Vec<u8> {
    let mut content = numbers(&[0, 0, 0]);
    content.push(1);
    content.extend(numbers(&[pools.len() as u64]));
    for (of, entries) in pools {
        content.extend(numbers(&[*of, entries.len() as u64]));
        for (key, value) in entries {
            content.extend(numbers(&[*key]));
            content.extend(value);
        }
    }
    event(1, &content)
}

fn chunk(events: &[Vec<u8>], types: &[Described<'_>]) -> Vec<u8> {
    let body = events.concat();
    let description = metadata(types);
    let size = (68 + body.len() + description.len()) as u64;
    let mut chunk = b"FLR\0".to_vec();
    chunk.extend([0, 2, 0, 1]);
    for number in [size, 0, 68 + body.len() as u64, 0, 0, 0, 0] {
        chunk.extend(number.to_be_bytes());
    }
    chunk.extend(1_u32.to_be_bytes());
    [chunk, body, description].concat()
}

/// A chain of two objects, the last of which is a class.
fn chain() -> Vec<u8> {
    let class = |key, name| (key, text(name));
    let object = |class, description: Vec<u8>, referrer| {
        [numbers(&[class]), description, numbers(&[referrer])].concat()
    };
    pools(&[
        (
            CLASS,
            vec![
                class(1, "a/B"),
                class(2, "[La/B;"),
                class(3, "java/lang/Class"),
            ],
        ),
        (
            OBJECT,
            vec![
                (1, object(1, vec![0], 1)),
                (2, object(2, vec![0], 2)),
                (3, object(3, text("Class Name: a.C"), 0)),
            ],
        ),
        (
            REFERENCE,
            vec![(1, numbers(&[1, 0, 2, 0])), (2, numbers(&[0, 1, 3, 7]))],
        ),
        (ARRAY, vec![(1, numbers(&[9]))]),
        (FIELD, vec![(1, [text("all"), numbers(&[8])].concat())]),
        (
            SYSTEM,
            vec![(1, text("Threads")), (2, text("Stack Variable"))],
        ),
        (
            ROOT,
            vec![(1, [text("Thread Name: main"), numbers(&[1, 2])].concat())],
        ),
    ])
}

fn sample(time: u64, object: u64, root: u64) -> Vec<u8> {
    event(SAMPLE, &numbers(&[time, object, root]))
}

fn all(file: &[u8]) -> Result<Samples, Broken> {
    samples(file, &|class| class == "a/B")
}

#[test]
fn the_way_from_an_object_to_its_root_is_read() {
    // Those of an earlier time were written for somebody else.
    let events = [sample(5, 2, 1), chain(), sample(7, 1, 1), sample(7, 2, 0)];
    let found = all(&chunk(&events, TYPES)).unwrap();
    assert_eq!(
        (found.all, found.asked.len(), found.follows_weak),
        (2, 1, false)
    );
    let step = |class: &str, description: Option<&str>, place, left_out| Step {
        class: class.into(),
        description: description.map(Rc::from),
        place,
        left_out,
    };
    let name = "all".into();
    let expected = Sample {
        class: "a/B".into(),
        chain: vec![
            step("[La/B;", None, Place::Element, 0),
            step(
                "java/lang/Class",
                Some("Class Name: a.C"),
                Place::Field {
                    name,
                    is_static: true,
                },
                7,
            ),
        ],
        root: Some(GcRoot {
            system: "Threads".to_owned(),
            kind: "Stack Variable".to_owned(),
            description: Some("Thread Name: main".to_owned()),
        }),
    };
    assert_eq!(found.asked, [expected]);
}

#[test]
fn the_last_chunk_with_samples_counts() {
    let first = chunk(&[sample(5, 1, 1), chain()], TYPES);
    let second = chunk(&[sample(7, 1, 0), sample(7, 1, 0), chain()], TYPES);
    let third = chunk(&[], TYPES);
    let found = all(&[first, second, third].concat()).unwrap();
    assert_eq!((found.all, found.asked.len()), (2, 2));
    assert!(found.asked.iter().all(|it| it.root.is_none()));
    let none = all(&chunk(&[], TYPES)).unwrap();
    assert_eq!((none.all, none.asked.len()), (0, 0));
}

#[test]
fn what_is_cut_off_anywhere_is_no_recording() {
    let whole = chunk(&[sample(7, 1, 1), chain()], TYPES);
    assert!(all(&whole).is_ok());
    for length in 0..whole.len() {
        assert!(all(&whole[..length]).is_err(), "{length}");
    }
    assert_eq!(all(b"FLR\0\0\x01\0\0"), Err(Broken::Version(1)));
    assert_eq!(all(b"PK\x03\x04"), Err(Broken::NoRecording));
}

#[test]
fn circles_and_values_of_nothing_come_to_an_end() {
    let object = |referrer| [numbers(&[1]), vec![0], numbers(&[referrer])].concat();
    let circle = pools(&[
        (CLASS, vec![(1, text("a/B"))]),
        (OBJECT, vec![(1, object(1))]),
        (REFERENCE, vec![(1, numbers(&[0, 0, 1, 0]))]),
    ]);
    let found = all(&chunk(&[sample(7, 1, 0), circle], TYPES));
    assert_eq!(found, Err(Broken::TooMuch));
    let within: &[Described<'_>] = &[(NOTHING, "a", &[("itself", NOTHING, false)])];
    let nothing = pools(&[(NOTHING, vec![(1, vec![])])]);
    assert_eq!(
        all(&chunk(std::slice::from_ref(&nothing), within)),
        Err(Broken::Malformed)
    );
    // A type within each of its fields: as many values as nobody waits for.
    let many: Vec<_> = (0..12).map(|_| ("it", NOTHING + 1, false)).collect();
    let more: Vec<_> = (0..12).map(|_| ("it", NOTHING + 2, false)).collect();
    let most: Vec<_> = (0..12).map(|_| ("it", NOTHING + 3, false)).collect();
    let end: Vec<_> = (0..12).map(|_| ("it", NOTHING + 4, false)).collect();
    let wide: &[Described<'_>] = &[
        (NOTHING, "a", &many),
        (NOTHING + 1, "b", &more),
        (NOTHING + 2, "c", &most),
        (NOTHING + 3, "d", &end),
        (NOTHING + 4, "e", &[]),
    ];
    assert_eq!(all(&chunk(&[nothing], wide)), Err(Broken::TooMuch));
}

/// The numbers of a type of an entry, and of an event's size, are not believed.
#[test]
fn what_is_not_described_is_malformed() {
    let unknown = pools(&[(99, vec![(1, vec![])])]);
    assert_eq!(all(&chunk(&[unknown], TYPES)), Err(Broken::Malformed));
    let mut nothing = chunk(&[sample(7, 1, 1)], TYPES);
    nothing[68] = 0;
    assert_eq!(all(&nothing), Err(Broken::Malformed));
    let mut beyond = chunk(&[sample(7, 1, 1)], TYPES);
    beyond[68..72].copy_from_slice(&[0xff, 0xff, 0xff, 0x7f]);
    assert_eq!(all(&beyond), Err(Broken::CutOff));
}
