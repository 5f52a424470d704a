//! The handshake of `target.h` for programs with one command.

use std::io::{BufRead, Write};

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .expect("stdout is open");
}

/// Serves `leak_vectors` until end of file. The truth is blocks and bytes that it
/// allocates, and of these what it frees.
pub fn serve(leak_vectors: fn(), [allocated, bytes, freed, freed_bytes]: [u32; 4]) {
    say(&format!("{} ready\n", std::process::id()));
    for line in std::io::stdin().lock().lines() {
        match line.expect("stdin is readable").as_str() {
            "leak_vectors" => leak_vectors(),
            other => {
                say(&format!("no command {other}\n"));
                continue;
            }
        }
        say(&format!(
            "done {{\"sites\":[{{\"function\":\"leak_vectors\",\"size\":0,\"kind\":\"heap\",\"checked\":\"all\",\
             \"allocated_count\":{allocated},\"allocated_bytes\":{bytes},\
             \"freed_count\":{freed},\"freed_bytes\":{freed_bytes}}}],\
             \"untraced_frees\":0,\"losses\":0,\"others\":true}}\n"
        ));
    }
}
