// Package maxprocs has the Go runtime use one processor, in a program that imports it
// for that. One pod's network is made and served one step after the other: more
// processors take no less time, and each keeps heap of its own (on a node with 16, 1 MiB).
//
// It imports nothing else, so that it is initialised before others allocate: to take a
// processor away later costs what it saves.
package maxprocs

import "runtime"

func init() { runtime.GOMAXPROCS(1) }
