package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"
)

// These limit how much of an answer is read, in bytes, and how long the body may take. Only the status decides; the body is
// read because an instance may log an error if the connection is closed before everything is sent.
const (
	maxHeader   = 64 << 10
	maxBody     = 512 << 10
	bodyTimeout = 500 * time.Millisecond
	// maxInterim is how many interim answers are skipped.
	maxInterim = 16
)

// HTTP succeeds when a GET of path is answered with a status from 200 to 399. It skips interim answers, below 200, and
// follows no redirect. It does not use net/http, whose client needs more memory for a connection than the node needs for a
// container.
func HTTP(address, path string) Check {
	request := "GET " + path + " HTTP/1.1\r\nHost: " + address + "\r\nUser-Agent: mammoth-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
	return func(ctx context.Context) error {
		conn, err := dial(ctx, address)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		defer stop()
		if _, err := io.WriteString(conn, request); err != nil {
			return fmt.Errorf("GET %s: %w", path, withoutAddresses(err))
		}
		answer := &answer{conn: conn, head: &io.LimitedReader{R: conn, N: maxHeader}}
		answer.reader = bufio.NewReaderSize(answer.head, 4096)
		status, err := answer.status()
		if err != nil {
			return fmt.Errorf("GET %s: %w", path, err)
		}
		answer.finish(status)
		if status < 200 || status > 399 {
			return fmt.Errorf("GET %s answered %d", path, status)
		}
		return nil
	}
}

// answer reads an HTTP answer from a connection.
type answer struct {
	conn   net.Conn
	reader *bufio.Reader
	// head limits how much reader may read.
	head *io.LimitedReader
}

// status is the first status that is not an interim one.
func (a *answer) status() (int, error) {
	for range maxInterim + 1 {
		line, err := a.line()
		if err != nil {
			return 0, withoutAddresses(err)
		}
		status, err := statusCode(line)
		if err != nil || status >= 200 || status == 101 { // 101 was not requested
			return status, err
		}
		if _, err := a.headers(); err != nil {
			return 0, withoutAddresses(err)
		}
	}
	return 0, fmt.Errorf("more than %d interim answers", maxInterim)
}

// line reads a line, of which it returns the beginning if it is very long.
func (a *answer) line() (string, error) {
	line, long, err := a.reader.ReadLine()
	text := string(line)
	for long && err == nil {
		_, long, err = a.reader.ReadLine()
	}
	if err != nil && text != "" && errors.Is(err, io.EOF) {
		err = nil
	}
	return text, err
}

// headers reads to the empty line and returns the length of the body: -1 if it ends with the connection, -2 if it comes in chunks.
func (a *answer) headers() (int64, error) {
	length := int64(-1)
	for {
		line, err := a.line()
		if err != nil || line == "" {
			return length, err
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch {
		case strings.EqualFold(name, "Transfer-Encoding") && strings.Contains(strings.ToLower(value), "chunked"):
			length = -2
		case strings.EqualFold(name, "Content-Length") && length == -1:
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
				length = n
			}
		}
	}
}

// finish reads the rest of the answer, at most maxBody bytes and for at most bodyTimeout.
func (a *answer) finish(status int) {
	_ = a.conn.SetReadDeadline(time.Now().Add(bodyTimeout))
	length, err := a.headers()
	if err != nil || status == 204 || status == 304 {
		return
	}
	a.head.N = maxBody
	var body io.Reader = a.reader
	switch {
	case length == -2:
		body = httputil.NewChunkedReader(a.reader)
	case length >= 0:
		body = io.LimitReader(a.reader, length)
	}
	_, _ = io.Copy(io.Discard, body)
}

// statusCode reads the first line of an HTTP/1 response.
func statusCode(line string) (int, error) {
	version, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
	code, _, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
	status, err := strconv.Atoi(code)
	if !strings.HasPrefix(version, "HTTP/1.") || err != nil || len(code) != 3 || status < 100 {
		return 0, errors.New("the answer is not HTTP")
	}
	return status, nil
}
