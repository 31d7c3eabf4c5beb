package prestart

import (
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
)

// writable begins the name of the file by which canHandOver tries to write.
const writable = ".writable-"

// clockTick is more than a file's time may be behind the clock (CONFIG_HZ is 100 or more).
const clockTick = 20 * time.Millisecond

// isUnfinished tells whether a file of the output directory is what a process leaves there
// that is killed while it writes.
func isUnfinished(name string) bool {
	of, ok := statedir.Unfinished(name)
	return ok && ("."+of == writable || slices.Contains(allFiles, of))
}

// lockOutput has the output directory locked until the function is called that it returns:
// by who writes there (unix.LOCK_SH), or by who removes what nobody writes any more
// (unix.LOCK_EX). It waits for nobody; ok is false if it is not locked.
func (h Hook) lockOutput(how int) (unlock func(), ok bool) {
	dir, err := os.Open(h.OutputDir)
	if err != nil {
		return func() {}, false
	}
	ok = unix.Flock(int(dir.Fd()), how|unix.LOCK_NB) == nil
	return func() { _ = dir.Close() }, ok
}

// removeUnfinished removes from the output directory what processes that were killed have
// left, if no other writes there.
func (h Hook) removeUnfinished() error {
	unlock, alone := h.lockOutput(unix.LOCK_EX)
	defer unlock()
	if !alone {
		return nil
	}
	since := time.Now().Add(-clockTick) // who writes from now on has no lock
	entries, err := os.ReadDir(h.OutputDir)
	if err != nil {
		return fmt.Errorf("read output directory: %w", err)
	}
	for _, e := range entries {
		if !isUnfinished(e.Name()) {
			continue
		}
		if info, err := e.Info(); err != nil || !info.Mode().IsRegular() || info.ModTime().After(since) {
			continue
		}
		if err := h.remove(e.Name()); err != nil {
			return err
		}
	}
	return nil
}
