// A Go program without C, and so without an allocator that could be probed: each 10 ms it
// keeps three blocks and lets others go.
//
// Prints `PID ready`, and ends with standard input.
package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

var sessions = map[int][]byte{}

//go:noinline
func decode() []byte {
	return make([]byte, 5003)
}

//go:noinline
func remember(number int) {
	sessions[number] = decode()
}

func main() {
	fmt.Println(os.Getpid(), "ready")
	go func() {
		for number := 0; ; number++ {
			remember(number)
			if number%3 == 0 {
				decode()
				time.Sleep(10 * time.Millisecond)
			}
		}
	}()
	io.Copy(io.Discard, os.Stdin)
}
