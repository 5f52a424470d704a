// A Go program that calls C code, which calls it back, with the handshake of `target.h`.
package main

/*
#include <pthread.h>
#include <stdlib.h>

extern void goBack(int how, size_t size);

#define SITE static __attribute__((noinline, noipa, unused))

// The pointer is kept out of the compiler's sight, so that nothing is a tail call.
static void *volatile kept;

SITE void take(size_t size) {
	kept = malloc(size);
}

SITE void take_and_give(size_t size) {
	kept = malloc(size);
	free(kept);
}

SITE void call_back(int how, size_t size) {
	goBack(how, size);
	kept = NULL;
}

SITE void *thread(void *size) {
	call_back(0, (size_t)size);
	return NULL;
}

SITE void call_back_in_thread(size_t size) {
	pthread_t id;
	if (pthread_create(&id, NULL, thread, (void *)size))
		abort();
	pthread_join(id, NULL);
}
*/
import "C"

import (
	"bufio"
	"fmt"
	"os"
)

//go:noinline
func keeps(count int) {
	for i := 0; i < count; i++ {
		C.take(1009)
	}
}

//go:noinline
func gives(count int) {
	for i := 0; i < count; i++ {
		C.take_and_give(1009)
	}
}

// Both in a goroutine, as a server does.
func inGoroutine() {
	done := make(chan bool)
	go func() {
		keeps(7)
		gives(11)
		done <- true
	}()
	<-done
}

//go:noinline
func back(size C.size_t) {
	C.take(size)
}

// Takes a hundred bytes of stack for each round.
//
//go:noinline
func deep(rounds int) int {
	var room [64]byte
	if rounds == 0 {
		return int(room[0])
	}
	return deep(rounds-1) + int(room[rounds%64])
}

//export goBack
func goBack(how C.int, size C.size_t) {
	switch how {
	case 1: // Once more.
		C.call_back(0, size)
	case 2: // The goroutine's stack moves while C code is on the thread's.
		deep(20000)
		back(size)
	default:
		back(size)
	}
}

//go:noinline
func callsBack(how C.int, size C.size_t) {
	for i := 0; i < 3; i++ {
		C.call_back(how, size)
	}
}

func inNewGoroutine(how C.int, size C.size_t) {
	done := make(chan bool)
	go func() {
		callsBack(how, size)
		done <- true
	}()
	<-done
}

var heap [][]byte

// Go's own heap, for which the runtime maps memory on the thread's stack.
//
//go:noinline
func grows(pieces int) {
	for i := 0; i < pieces; i++ {
		heap = append(heap, make([]byte, 1<<20))
	}
}

func growsInGoroutine() {
	done := make(chan bool)
	go func() {
		grows(256)
		done <- true
	}()
	<-done
}

func site(size, count, freed int) string {
	return fmt.Sprintf(`{"function":"","size":%d,"kind":"heap","checked":"all",`+
		`"allocated_count":%d,"allocated_bytes":%d,"freed_count":%d,"freed_bytes":%d}`,
		size, count, count*size, freed, freed*size)
}

func main() {
	fmt.Printf("%d ready\n", os.Getpid())
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		truth := ""
		switch lines.Text() {
		case "goroutine":
			inGoroutine()
			truth = site(1009, 18, 11)
		case "grows":
			growsInGoroutine()
			truth = site(1, 0, 0)
		case "callback":
			inNewGoroutine(0, 2003)
			truth = site(2003, 3, 0)
		case "callbacks":
			inNewGoroutine(1, 3001)
			truth = site(3001, 3, 0)
		case "moved":
			inNewGoroutine(2, 4001)
			truth = site(4001, 3, 0)
		case "thread":
			C.call_back_in_thread(5003)
			truth = site(5003, 1, 0)
		default:
			fmt.Printf("no command %s\n", lines.Text())
			continue
		}
		fmt.Printf(`done {"sites":[%s],"untraced_frees":0,"losses":0,"others":true}`+"\n", truth)
	}
}
