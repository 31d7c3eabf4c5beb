package prestart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
)

const (
	// answerTime is how long a server has to say what it knows already.
	answerTime = 2 * time.Second
	// maxAnswer bounds an answer: a VM has few NICs, and texts of some hundred bytes.
	maxAnswer = 1 << 20
)

// askStatus gets what the serving process knows now. It waits for that no longer
// than answerTime.
func (h Hook) askStatus(ctx context.Context, within time.Duration) (SessionStatus, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, within, fmt.Errorf("not within %s", within))
	defer cancel()
	return h.ask(ctx, "/v1/status")
}

// ask gets what the serving process answers until ctx ends. The error wraps
// [ErrNobodyServes] if there is none, and [ErrNoAnswer] if it says nothing.
func (h Hook) ask(ctx context.Context, resource string) (SessionStatus, error) {
	path := filepath.Join(h.StateDir, controlSocket)
	conn, peer, err := statedir.Dial(ctx, path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ECONNREFUSED):
		return SessionStatus{}, fmt.Errorf("%w on %s (%w): start a server, or name its state directory", ErrNobodyServes, path, errors.Unwrap(err))
	case errors.Is(err, unix.EAGAIN): // so many ask that the kernel has no more room for one
		return SessionStatus{}, fmt.Errorf("ask %s: %w: it is stopped, frozen or busy", path, ErrNoAnswer)
	case err != nil:
		return SessionStatus{}, fmt.Errorf("ask %s: %w", path, err)
	}
	defer conn.Close()
	server := statedir.Process(int(peer.Pid))
	status, err := h.talk(ctx, conn, resource)
	switch {
	case err == nil:
		return status, nil
	case ctx.Err() != nil:
		return SessionStatus{}, fmt.Errorf("ask %s: %w: %s is stopped, frozen or busy (%w)", path, ErrNoAnswer, server, context.Cause(ctx))
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return SessionStatus{}, fmt.Errorf("ask %s: %w: %s has ended", path, ErrNobodyServes, server)
	}
	return SessionStatus{}, fmt.Errorf("ask %s: %s: %w", path, server, err)
}

// talk asks over a connection.
func (h Hook) talk(ctx context.Context, conn net.Conn, resource string) (SessionStatus, error) {
	var status SessionStatus
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://virt-launcher-net"+resource, http.NoBody)
	if err != nil {
		return status, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return status, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch of := resp.Header.Get(namespaceHeader); {
	case err != nil:
		return status, err
	case resp.StatusCode != http.StatusOK:
		return status, fmt.Errorf("%s: %s", printableText(resp.Status), printableText(string(body[:min(len(body), 1<<10)])))
	case len(body) > maxAnswer:
		return status, fmt.Errorf("it answers more than %d bytes", maxAnswer)
	case of == "":
		return status, errors.New("it does not say which network namespace it serves")
	case of != headerOf(h.namespace):
		return status, fmt.Errorf("it serves another network namespace (%s, not %s): name the state directory of this one", printableText(of), headerOf(h.namespace))
	}
	if err := unmarshal(body, &status); err != nil {
		return SessionStatus{}, fmt.Errorf("what it answers is damaged: %w", err)
	}
	return status, nil
}
