package httpd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// Response is what a server answers.
type Response struct {
	Status string // 200 OK
	Header textproto.MIMEHeader
	Body   []byte
}

// Get asks for a resource over a connection, of which nothing is left then. A body has
// at most so many bytes, or one more. If ctx ends there is an error.
func Get(ctx context.Context, conn net.Conn, host, resource string, most int64) (r Response, err error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	// Of 1.0, so that the body is all that follows, whoever answers.
	if _, err = fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", resource, host); err != nil {
		return r, err
	}
	in := &io.LimitedReader{R: conn, N: maxRequest}
	text := textproto.NewReader(bufio.NewReader(in))
	line, err := text.ReadLine()
	if err != nil {
		return r, err
	}
	version, status, _ := strings.Cut(line, " ")
	if !strings.HasPrefix(version, "HTTP/1.") {
		return r, fmt.Errorf("it does not answer by HTTP/1: %q", line[:min(len(line), 100)])
	}
	r.Status = status
	if r.Header, err = text.ReadMIMEHeader(); err != nil {
		return r, fmt.Errorf("read header of the answer: %w", err)
	}
	in.N = most + 1
	if r.Body, err = io.ReadAll(io.LimitReader(text.R, most+1)); err != nil {
		return r, err
	}
	if length := r.Header.Get("Content-Length"); length != "" && int64(len(r.Body)) <= most && length != strconv.Itoa(len(r.Body)) {
		return r, io.ErrUnexpectedEOF
	}
	return r, nil
}
