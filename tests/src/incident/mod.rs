//! The incidents in `tests/targets/java/incidents`, and what a report must say
//! about each: plain data, which `judge` compares with a report.

mod classes;
mod judge;
mod oracle;
mod table;
mod trial;

pub use judge::{Finding, Outcome, Verdict};
pub use oracle::held_objects;
pub use table::Table;
pub use trial::{Trial, Variant};

/// A program that leaks in a known way, and has a twin that does not.
#[derive(Debug, Clone, Copy)]
pub struct Incident {
    /// Its class in the package `incidents`.
    pub name: &'static str,
    /// Rounds in a trial: some ten milliseconds of work. Where a class grows, a
    /// sixtieth of them allocates more than 100 KB, so that the thread's buffer
    /// is filled: the VM takes a sample then, and the first after a collection
    /// is of what happens to come first.
    pub rounds: u32,
    /// The Java methods on the way to the allocation, outermost first, with
    /// others in between.
    pub path: &'static [&'static str],
    /// The class whose instances grow, if objects leak.
    pub class: Option<&'static str>,
    /// The field, or the root, that the write-up names as what holds them.
    pub holder: Option<&'static str>,
    /// What leaks outside of the Java heap, if something does.
    pub native: Option<Native>,
}

/// A leak outside of the Java heap.
#[derive(Debug, Clone, Copy)]
pub struct Native {
    /// Functions on the way to the allocation, outermost first, with others in
    /// between: those that no JDK at hand compiles away.
    pub frames: &'static [&'static str],
    /// The same where the VM's own functions have no names, if that is less: the
    /// neighbour's blocks are on this path too, and none of them may be live.
    pub exported: Option<&'static [&'static str]>,
    /// What the blocks are.
    pub blocks: Blocks,
    /// Functions on the way to a neighbour's allocation, which is freed.
    pub freed: Option<&'static [&'static str]>,
}

impl Incident {
    /// What is to be seen of it where the VM's own functions have no names.
    fn stripped(self) -> Self {
        let exported = |native: Native| match native.exported {
            Some(frames) => Native {
                frames,
                freed: None,
                ..native
            },
            None => native,
        };
        Self {
            native: self.native.map(exported),
            ..self
        }
    }
}

/// What is known about leaked blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocks {
    /// One for each instance, of the size that the program tells.
    OfKnownSize,
    /// Some for each instance, as many as a library needs.
    SomeForEach,
}

/// All incidents: the five that happened, then native leaks.
pub const INCIDENTS: &[Incident] = &[
    Incident {
        name: "ScopeChain",
        rounds: 9000,
        path: &["Record.value", "Advice.onValue", "Advice.activate"],
        class: Some("incidents.ScopeChain$ThreadLocalScope"),
        holder: Some("java.lang.ThreadLocal$ThreadLocalMap$Entry.value"),
        native: None,
    },
    Incident {
        name: "ClientList",
        rounds: 900,
        path: &[
            "ClientList.notifyChanged",
            "ClientList.toInvokers",
            "ClientList.refer",
            "ClientList.newClient",
        ],
        class: Some("incidents.ClientList$RestClient"),
        holder: Some("incidents.ClientList.clients"),
        native: None,
    },
    Incident {
        name: "StatisticsScheduler",
        rounds: 1200,
        path: &[
            "ServerStatistics.initialize",
            "ServerStatistics.distribution",
            "Buffer.<init>",
        ],
        class: Some("double[]"),
        holder: Some("java.util.concurrent.ScheduledThreadPoolExecutor$DelayedWorkQueue.queue"),
        native: None,
    },
    Incident {
        name: "BootLoaderAgent",
        rounds: 1000,
        path: &[
            "BootLoaderAgent.logError",
            "StackTraceFormatter.format",
            "StackTraceFormatter.locationOf",
            "StackTraceFormatter.loadClass",
            "Class.forName",
        ],
        class: None,
        holder: None,
        native: Some(Native {
            frames: &[
                "Java_java_lang_Class_forName0",
                "JVM_FindClassFromCaller",
                "ClassLoader::load_class",
                "KlassFactory::create_from_stream",
                "JvmtiExport::post_class_file_load_hook",
                "malloc",
            ],
            exported: Some(&[
                "Java_java_lang_Class_forName0",
                "JVM_FindClassFromCaller",
                "malloc",
            ]),
            blocks: Blocks::OfKnownSize,
            freed: Some(&[
                "JvmtiExport::post_class_file_load_hook",
                "transformClassFile",
                "JvmtiEnv::Allocate",
                "malloc",
            ]),
        }),
    },
    Incident {
        name: "GaugeChannels",
        rounds: 1000,
        path: &[
            "GaugeChannels.restart",
            "GaugeChannels.connect",
            "GaugeChannels.newChannel",
        ],
        class: Some("incidents.GaugeChannels$Channel"),
        holder: Some("incidents.GaugeChannels.channelOfSession"),
        native: Some(UNSAFE),
    },
    Incident {
        name: "InflaterNeverEnded",
        rounds: 4000,
        path: &["InflaterNeverEnded.decompress", "Inflater.<init>"],
        class: None,
        holder: None,
        native: Some(Native {
            frames: &[
                "Java_java_util_zip_Inflater_init",
                "inflateInit2_",
                "malloc",
            ],
            exported: None,
            blocks: Blocks::SomeForEach,
            freed: None,
        }),
    },
    Incident {
        name: "DeflaterNeverEnded",
        rounds: 200,
        path: &["DeflaterNeverEnded.compress", "Deflater.<init>"],
        class: None,
        holder: None,
        native: Some(Native {
            frames: &[
                "Java_java_util_zip_Deflater_init",
                "deflateInit2_",
                "malloc",
            ],
            exported: None,
            blocks: Blocks::SomeForEach,
            freed: None,
        }),
    },
    Incident {
        name: "DirectBuffersKept",
        rounds: 3000,
        path: &[
            "DirectBuffersKept.open",
            "ByteBuffer.allocateDirect",
            "DirectByteBuffer.<init>",
        ],
        class: None,
        holder: None,
        native: Some(UNSAFE),
    },
    Incident {
        name: "UnsafeKept",
        rounds: 10_000,
        path: &["UnsafeKept.newEntry", "Unsafe.allocateMemory"],
        class: None,
        holder: None,
        native: Some(UNSAFE),
    },
    Incident {
        name: "JniMalloc",
        rounds: 10_000,
        path: &["JniMalloc.round", "JniMalloc.decodeImage"],
        class: None,
        holder: None,
        native: Some(Native {
            frames: &[
                "Java_incidents_JniMalloc_decodeImage",
                "new_image",
                "malloc",
            ],
            exported: None,
            blocks: Blocks::OfKnownSize,
            freed: None,
        }),
    },
];

/// `Unsafe_AllocateMemory0` itself is not on the path everywhere: in 25 it
/// leaves its frame to `os::malloc`, which 11 has inlined.
const UNSAFE: Native = Native {
    frames: &["malloc"],
    exported: None,
    blocks: Blocks::OfKnownSize,
    freed: None,
};
