package control

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/virt-launcher-net/virt-launcher-net/internal/statedir"
)

// maxRequest bounds what is asked.
const maxRequest = 1 << 20

// RefusedError is that the serving process did not do what it was asked to.
type RefusedError struct {
	// Kind is by what a caller may branch; empty: nothing.
	Kind string `json:"kind,omitempty"`
	Text string `json:"error"`
}

func (e *RefusedError) Error() string { return e.Text }

// Post has the server do what is sent to the resource in JSON, and answer in JSON what
// do returns. kind is that of an error of do. The context of do ends when who asks is
// gone. It is called before Listen, and not for a server that listens in the pod.
func (s *Server) Post(resource string, do func(ctx context.Context, request []byte) (any, error), kind func(error) string) {
	s.takesPosts = true
	s.mux.HandleFunc("POST "+resource, func(w http.ResponseWriter, r *http.Request) {
		connection := http.NewResponseController(w)
		_ = connection.SetReadDeadline(time.Now().Add(answerTime)) // an error: it has ended
		request, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		_ = connection.SetReadDeadline(time.Time{})
		var answer any
		if err == nil {
			answer, err = do(r.Context(), request)
		}
		if err != nil {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set(namespaceHeader, headerOf(s.namespace))
			_ = connection.SetWriteDeadline(time.Now().Add(answerTime)) // as reply
			w.WriteHeader(http.StatusConflict)
			answer = RefusedError{kind(err), strings.ReplaceAll(err.Error(), "\n", "; ")} // of several, each is a line
			_ = json.NewEncoder(w).Encode(answer)                                         // an error means that nobody reads any more
			return
		}
		s.reply(w, answer)
	})
}

// Post sends a request to the server in JSON, and reads its answer. Only one that listens
// in the state directory is asked. The error wraps
// [ErrNobodyServes] or [ErrNoAnswer] as that of Status, or [ErrNode], or is a
// [*RefusedError]. What
// was asked for may be done nevertheless if ctx ends before there is an answer.
func (c Client) Post(ctx context.Context, resource string, request, answer any) error {
	at, err := c.locate()
	if err != nil {
		return err
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	return at.ask(ctx, http.MethodPost, resource, bytes.NewReader(body), answer)
}

// refusal is what an answer that is none says; nil: it is not one of Post's.
func refusal(body []byte) (refused *RefusedError) {
	if err := statedir.Unmarshal(body, &refused); err == nil && refused != nil && refused.Text != "" {
		return refused
	}
	return nil
}
