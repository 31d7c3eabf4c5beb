package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// lookInPod is how often one looks for the socket in the pod: nobody tells when an
// abstract one comes to be.
const lookInPod = 500 * time.Millisecond

// tellAfter is how long Wait waits before it says what for.
const tellAfter = 3 * time.Second

// Wait blocks until what is asked for, [ForNetwork] or [ForLease], is so, or ctx
// ends. A process that serves may yet have to start. If it takes some seconds, the Log
// says once what is not so yet. The error wraps the cause of the context's end, and
// [ErrNobodyServes] or [ErrNoAnswer] if that is why.
func (c Client) Wait(ctx context.Context, condition string) (Status, error) {
	start := time.Now()
	if err := checkCondition(condition); err != nil {
		return Status{}, err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return Status{}, fmt.Errorf("watch state directory: %w", err)
	}
	defer watcher.Close()
	early, cancel := context.WithTimeout(ctx, tellAfter)
	defer cancel()
	at, status, err := c.wait(early, watcher, condition)
	if err != nil && early.Err() != nil && ctx.Err() == nil {
		if c.Log != nil {
			c.Log.Info("still waiting", "for", condition, "after", tellAfter, "because", at.soFar(ctx))
		}
		at, status, err = c.wait(ctx, watcher, condition)
	}
	if err != nil && ctx.Err() != nil {
		return Status{}, fmt.Errorf("wait for %s: %w: %w", condition, ended(ctx, start), at.soFar(context.WithoutCancel(ctx)))
	}
	return status, err
}

// wait is Wait, whose error is any if ctx has ended. It tells where the server was looked
// for last.
func (c Client) wait(ctx context.Context, watcher *fsnotify.Watcher, condition string) (at located, status Status, err error) {
	for {
		if at, err = c.locate(); err != nil { // each time: the directory may have come to be another
			return at, Status{}, err
		}
		if err := watchFor(watcher, at.dir); err != nil {
			return at, Status{}, err
		}
		err := at.ask(ctx, http.MethodGet, "/v1/wait?for="+condition, http.NoBody, &status)
		if err == nil {
			return at, status, nil
		}
		if ctx.Err() == nil && (errors.Is(err, errNoSocket) || isAbsent(err) || errors.Is(err, unix.EAGAIN)) { // or so many ask just now
			err = waitForSocket(ctx, watcher, at.dir)
		}
		if err != nil {
			return at, Status{}, err
		}
	}
}

// ended is why ctx has ended. Unlike [context.Cause] it is the context's own error
// as well, and says how long a time that is over was.
func ended(ctx context.Context, start time.Time) error {
	cause := context.Cause(ctx)
	if !errors.Is(cause, ctx.Err()) {
		cause = fmt.Errorf("%w: %w", ctx.Err(), cause)
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		return &TimeoutError{time.Since(start).Round(10 * time.Millisecond), cause}
	}
	return cause
}

// watchFor watches the directory, and those above it in which it may come to be;
// none is made.
func watchFor(watcher *fsnotify.Watcher, dir string) error {
	for {
		err := watcher.Add(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("watch state directory %s: %w", dir, err)
		}
		above := filepath.Dir(dir)
		if err == nil && !strings.HasPrefix(filepath.Base(dir), "netns-") || above == dir {
			return nil
		}
		dir = above
	}
}

// waitForSocket waits until something is made that may be a control socket, or a
// directory on the way to it, or until it is time to look in the pod again.
func waitForSocket(ctx context.Context, watcher *fsnotify.Watcher, dir string) error {
	inPod := time.After(lookInPod)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-inPod:
			return nil
		case err := <-watcher.Errors:
			if errors.Is(err, fsnotify.ErrEventOverflow) {
				return nil
			}
			return fmt.Errorf("watch state directory: %w", err)
		case event := <-watcher.Events:
			name := filepath.Base(event.Name)
			onTheWay := dir == event.Name || strings.HasPrefix(dir, event.Name+string(os.PathSeparator))
			if event.Has(fsnotify.Create) && (name == SocketName || onTheWay || strings.HasPrefix(name, "netns-")) {
				return nil
			}
		}
	}
}

// soFar says how far the pod has come; within a second, also if the server does not
// answer.
func (at located) soFar(ctx context.Context) error {
	status, err := at.status(ctx, time.Second)
	switch {
	case err != nil:
		return err
	case status.NotReady() != "":
		return errors.New(status.NotReady())
	case status.NoLease() != "":
		return errors.New(status.NoLease())
	}
	return errors.New("it was just created")
}
