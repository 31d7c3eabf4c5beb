package agent

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/virt-launcher-net/virt-launcher-net/internal/attachment"
	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
	"github.com/virt-launcher-net/virt-launcher-net/pkg/prepare"
)

// ErrNoAgent means that no agent listens: none runs on the node, or it is being started.
var ErrNoAgent = errors.New("no agent listens on this node")

// maxAnswer bounds an answer: a node has some hundred pods.
const maxAnswer = 64 << 20

// Client speaks to the agent of a node. The zero value is good for the usual one.
type Client struct {
	// StateDir is the agent's; empty: [prepare.DefaultStateDir].
	StateDir string
}

// Attach has the agent serve a NIC whose attachment is written. It returns once the NIC
// is served, or why it is not. The error wraps [ErrNoAgent] if nobody listens.
func (c Client) Attach(ctx context.Context, containerID, name string) error {
	_, err := c.do(ctx, http.MethodPut, resourceOf(containerID, name))
	return err
}

// Detach has the agent let go of a NIC, and returns once it has no socket in the pod's
// network namespace for it any more. One that is not served is no error. The error wraps
// [ErrNoAgent] if nobody listens.
func (c Client) Detach(ctx context.Context, containerID, name string) error {
	_, err := c.do(ctx, http.MethodDelete, resourceOf(containerID, name))
	return err
}

// answerTime is how long the agent has to say what it serves.
const answerTime = 5 * time.Second

// Status asks what the agent serves. An agent that is stopped or frozen is waited for
// five seconds.
func (c Client) Status(ctx context.Context) (Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTime, fmt.Errorf("it does not answer within %s: is it stopped, frozen or busy?", answerTime))
	defer cancel()
	var status Status
	b, err := c.do(ctx, http.MethodGet, "/v1/status")
	if err == nil {
		if err = statedir.Unmarshal(b, &status); err != nil {
			err = fmt.Errorf("read the agent's answer: %w", err)
		}
	}
	return status, err
}

func resourceOf(containerID, name string) string {
	return "/v1/attachments/" + url.PathEscape(containerID) + "/" + url.PathEscape(name)
}

func (c Client) do(ctx context.Context, method, resource string) ([]byte, error) {
	path := filepath.Join(cmp.Or(c.StateDir, prepare.DefaultStateDir), attachment.SocketName)
	status, body, err := ask(ctx, path, method, resource)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ECONNREFUSED):
		return nil, fmt.Errorf("%w: %s", ErrNoAgent, path)
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("ask agent on %s: %w", path, context.Cause(ctx))
	case err != nil:
		return nil, fmt.Errorf("ask agent on %s: %w", path, err)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("ask agent on %s: its answer has more than %d bytes", path, maxAnswer)
	case status != http.StatusOK:
		return nil, fmt.Errorf("agent: %s", statedir.Printable(string(bytes.TrimSpace(body[:min(len(body), 4<<10)]))))
	}
	return body, nil
}

// ask sends a request and reads the answer, of one byte more than maxAnswer at most. It
// does without an [http.Transport], which would begin three goroutines in a plugin that
// asks once.
func ask(ctx context.Context, path, method, resource string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+resource, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	req.Close = true
	conn, _, err := statedir.Dial(ctx, path)
	if err != nil {
		return 0, nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := req.Write(conn); err != nil {
		return 0, nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	return resp.StatusCode, body, err
}

// answer is what the agent's status is on the wire.
func (s Status) answer(w io.Writer) error { return json.NewEncoder(w).Encode(s) }
