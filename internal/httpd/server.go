// Package httpd answers GET requests over HTTP/1.1 (RFC 9112), one on each connection,
// and asks for what such a server has. net/http does much more: it brings TLS and HTTP/2
// along, which are a third of the program and of the time before main, and of the memory
// that each pod takes. Whoever needs these puts a proxy in front.
package httpd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Status is what becomes of a request (RFC 9110 section 15).
type Status int

// What can become of one.
const (
	OK               Status = 200
	BadRequest       Status = 400
	NotFound         Status = 404
	MethodNotAllowed Status = 405
	Unavailable      Status = 503
)

func (s Status) String() string {
	return map[Status]string{
		OK: "200 OK", BadRequest: "400 Bad Request", NotFound: "404 Not Found",
		MethodNotAllowed: "405 Method Not Allowed", Unavailable: "503 Service Unavailable",
	}[s]
}

// Answer is an answer to a request. It is text without a Type.
type Answer struct {
	Status Status
	Type   string            // of the body
	Header map[string]string // further fields
	Body   []byte
}

// Text is an answer of a line of text.
func Text(s Status, line string) *Answer { return &Answer{Status: s, Body: []byte(line + "\n")} }

// Handler answers a request with these parameters. The context ends when who asks has
// gone, or the server is closed. nil: there is no answer, and the connection is closed.
type Handler func(ctx context.Context, query url.Values) *Answer

// maxRequest bounds a request's line and fields.
const maxRequest = 16 << 10

// Server answers requests. Close it.
type Server struct {
	handlers map[string]Handler // by path
	patience time.Duration
	ctx      context.Context
	cancel   context.CancelFunc

	mu    sync.Mutex
	open  map[io.Closer]bool // listeners and connections
	ended bool
}

// NewServer returns a server of what is at some paths. It waits for a request, and for
// an answer to be taken, no longer than patience.
func NewServer(patience time.Duration, handlers map[string]Handler) *Server {
	s := &Server{handlers: handlers, patience: patience, open: map[io.Closer]bool{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Serve answers on a listener until that or the server is closed. The error is
// [net.ErrClosed] then.
func (s *Server) Serve(l net.Listener) error {
	if !s.hold(l) {
		return net.ErrClosed
	}
	defer s.release(l)
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			go s.answer(conn)
		case errors.Is(err, syscall.ECONNABORTED):
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE): // nothing tells when a descriptor is free
			time.Sleep(10 * time.Millisecond)
		default:
			return err
		}
	}
}

// Close closes listeners and connections.
func (s *Server) Close() {
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for c := range s.open {
		_ = c.Close() // whoever uses it sees that
	}
}

// hold has Close close something; not ok if it was called.
func (s *Server) hold(c io.Closer) (ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		_ = c.Close()
		return false
	}
	s.open[c] = true
	return true
}

func (s *Server) release(c io.Closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	_ = c.Close()
}

// answer answers the request on a connection.
func (s *Server) answer(conn net.Conn) {
	if !s.hold(conn) {
		return
	}
	defer s.release(conn)
	_ = conn.SetDeadline(time.Now().Add(s.patience))
	method, target, err := readRequest(conn)
	var a *Answer
	switch {
	case err == nil:
		a = s.handle(conn, method, target)
	case errors.Is(err, errMalformed):
		a = Text(BadRequest, err.Error())
	}
	if a == nil {
		return
	}
	_ = conn.SetDeadline(time.Now().Add(s.patience))
	_, _ = conn.Write(a.encode(method != "HEAD")) // an error means that nobody reads any more
}

// handle returns the answer to a request.
func (s *Server) handle(conn net.Conn, method string, target *url.URL) *Answer {
	handler, ok := s.handlers[target.Path]
	switch {
	case !ok:
		return Text(NotFound, "404 page not found")
	case method != "GET" && method != "HEAD":
		return &Answer{Status: MethodNotAllowed, Header: map[string]string{"Allow": "GET, HEAD"}}
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	_ = conn.SetDeadline(time.Time{})
	go func() { // until who asks has gone, or has the answer
		_, _ = io.Copy(io.Discard, conn)
		cancel()
	}()
	return handler(ctx, target.Query())
}

// errMalformed is a request that is none.
var errMalformed = errors.New("malformed request")

// readRequest reads a request, of whose fields none matters.
func readRequest(r io.Reader) (method string, target *url.URL, err error) {
	in := bufio.NewReader(io.LimitReader(r, maxRequest))
	line, err := readLine(in)
	if err != nil {
		return "", nil, err
	}
	words := strings.Split(line, " ")
	if len(words) != 3 || !strings.HasPrefix(words[2], "HTTP/1.") {
		return "", nil, errMalformed
	}
	if target, err = url.ParseRequestURI(words[1]); err != nil {
		return "", nil, errMalformed
	}
	for line != "" {
		if line, err = readLine(in); err != nil {
			return "", nil, err
		}
	}
	return words[0], target, nil
}

// readLine reads a line without its end. One that is cut off is malformed, or has been
// left by who was to write it.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if errors.Is(err, io.EOF) && line != "" {
		err = errMalformed
	}
	return strings.TrimRight(line, "\r\n"), err
}

func (a *Answer) encode(withBody bool) []byte {
	kind := a.Type
	if kind == "" {
		kind = "text/plain; charset=utf-8"
	}
	b := fmt.Appendf(nil, "HTTP/1.1 %s\r\nDate: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n",
		a.Status, time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"), kind, len(a.Body))
	for name, value := range a.Header {
		b = fmt.Appendf(b, "%s: %s\r\n", name, value)
	}
	b = append(b, "\r\n"...)
	if withBody {
		b = append(b, a.Body...)
	}
	return b
}
