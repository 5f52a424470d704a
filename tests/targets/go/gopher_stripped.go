// flags: -ldflags=-s gopher.go
package main
