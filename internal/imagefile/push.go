package imagefile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/mammoth-os/mammoth/internal/backoff"
	"github.com/mammoth-os/mammoth/internal/wire"
	apiv1 "github.com/mammoth-os/mammoth/proto/mammoth/api/v1"
)

const (
	// chunkSize is how much is sent at a time, and kept to be sent again.
	chunkSize = 4 << 20
	// maxFailures is how often in a row the zone may not answer.
	maxFailures = 8
	// callTimeout is how long one answer may take, importTimeout that of an import, which reads the whole image and may wait
	// for others. The zone cancels an import when the client disconnects.
	callTimeout   = 5 * time.Minute
	importTimeout = 2 * time.Hour
	// maxAnswer is the longest answer of the zone.
	maxAnswer = 4 << 20
)

var retries = backoff.Policy{Min: 50 * time.Millisecond, Max: 3 * time.Second}

// PushOptions are what is uploaded, and where.
type PushOptions struct {
	// Server is the zone's address: HOST:PORT or a URL.
	Server string
	// Client is used for requests; nil is http.DefaultClient.
	Client *http.Client
	// Name is the image's NAME:TAG; empty uses the archive's own.
	Name string
	// Content is the image archive, read once and in order: a file, or standard input.
	Content io.Reader
	// Progress is called with the number of bytes that have arrived; it may be nil.
	Progress func(sent int64)
}

// Push uploads an image archive and lets the zone import it. It resumes after a broken connection, and gives up when the
// zone does not answer several times in a row. The zone deletes an abandoned upload after a while.
func Push(ctx context.Context, options PushOptions) (*apiv1.Image, error) {
	p := &pusher{options: options, base: strings.TrimSuffix(options.Server, "/")}
	if !strings.Contains(p.base, "://") {
		p.base = "http://" + p.base
	}
	if p.options.Client == nil {
		p.options.Client = http.DefaultClient
	}
	if err := p.start(ctx); err != nil {
		return nil, fmt.Errorf("start the upload: %w", err)
	}
	image, err := p.push(ctx)
	if err != nil {
		// The caller's context may have ended.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_, _ = p.do(ctx, http.MethodDelete, p.upload(), nil, 0)
		return nil, err
	}
	return image, nil
}

// pusher is one upload.
type pusher struct {
	options PushOptions
	base    string
	id      string
	// offset is how much the zone has.
	offset int64
}

// progress is the zone's answer about an upload.
type progress struct {
	ID     string `json:"id"`
	Offset int64  `json:"offset"`
}

func (p *pusher) upload() string { return "/v1/uploads/" + url.PathEscape(p.id) }

// start tries once: nothing is lost yet, and a missing zone is reported at once.
func (p *pusher) start(ctx context.Context) error {
	answer, err := p.do(ctx, http.MethodPost, "/v1/uploads", nil, 0)
	if refused := (*refusal)(nil); errors.As(err, &refused) {
		return refused.err
	}
	if err != nil {
		return err
	}
	var started progress
	if err := json.Unmarshal(answer, &started); err != nil || started.ID == "" {
		return fmt.Errorf("%s does not answer like a zone", p.base)
	}
	p.id = started.ID
	return nil
}

func (p *pusher) push(ctx context.Context) (*apiv1.Image, error) {
	chunk := make([]byte, chunkSize)
	for {
		n, readErr := io.ReadFull(p.options.Content, chunk)
		if n > 0 {
			if err := p.send(ctx, chunk[:n]); err != nil {
				return nil, fmt.Errorf("upload the image: %w", err)
			}
		}
		if readErr == io.EOF || readErr == io.ErrUnexpectedEOF {
			break
		}
		if readErr != nil {
			return nil, fmt.Errorf("read the image: %w", readErr)
		}
	}
	image := &apiv1.Image{}
	err := p.retry(ctx, func() error {
		answer, err := p.do(ctx, http.MethodPost, p.upload()+"/import?name="+url.QueryEscape(p.options.Name), nil, 0)
		if err != nil {
			return err
		}
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(answer, image)
	})
	if err != nil {
		return nil, err
	}
	return image, nil
}

// send sends one chunk, over broken connections. Before each repetition the zone reports how much of the chunk it has.
func (p *pusher) send(ctx context.Context, chunk []byte) error {
	first := p.offset
	end := first + int64(len(chunk))
	for p.offset < end {
		from := p.offset
		err := p.retry(ctx, func() error {
			answer, err := p.do(ctx, http.MethodPatch, p.upload(), chunk[p.offset-first:], p.offset)
			if err != nil && !errors.As(err, new(*refusal)) {
				if asked := p.learnOffset(ctx, first, end); asked != nil {
					return asked
				}
				if p.offset == from {
					return err
				}
				return nil // Some of it has arrived.
			}
			if err != nil {
				return err
			}
			return p.arrived(answer, first, end)
		})
		if err != nil {
			return err
		}
		if p.options.Progress != nil {
			p.options.Progress(p.offset)
		}
	}
	return nil
}

// learnOffset asks how much the zone has.
func (p *pusher) learnOffset(ctx context.Context, first, end int64) error {
	answer, err := p.do(ctx, http.MethodGet, p.upload(), nil, 0)
	if err != nil {
		return err
	}
	return p.arrived(answer, first, end)
}

func (p *pusher) arrived(answer []byte, first, end int64) error {
	var now progress
	if err := json.Unmarshal(answer, &now); err != nil {
		return fmt.Errorf("%s does not answer like a zone: %w", p.base, err)
	}
	if now.Offset < first || now.Offset > end {
		return &refusal{err: fmt.Errorf("the zone has %d bytes, but %d to %d were sent", now.Offset, first, end)}
	}
	p.offset = now.Offset
	return nil
}

// retry repeats a request while the zone does not answer. A refusal ends it.
func (p *pusher) retry(ctx context.Context, do func() error) error {
	for failures := 1; ; failures++ {
		err := do()
		if err == nil {
			return nil
		}
		if refused := (*refusal)(nil); errors.As(err, &refused) {
			return refused.err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if failures == maxFailures {
			return fmt.Errorf("gave up after %d attempts: %w", failures, err)
		}
		if err := backoff.Sleep(ctx, retries.After(failures)); err != nil {
			return err
		}
	}
}

// refusal is an answer that would be the same again.
type refusal struct {
	err error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// do makes one request.
func (p *pusher) do(ctx context.Context, method, path string, body []byte, offset int64) ([]byte, error) {
	within := callTimeout
	if method == http.MethodPost && p.id != "" {
		within = importTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, p.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, &refusal{err: fmt.Errorf("%q is not a zone's address: %w", p.options.Server, err)}
	}
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/octet-stream")
		request.Header.Set("Upload-Offset", strconv.FormatInt(offset, 10))
	}
	answer, err := p.options.Client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode < 300 {
		return content, nil
	}
	err = answerError(answer.Status, content)
	if answer.StatusCode >= 500 || answer.StatusCode == http.StatusConflict {
		return nil, err
	}
	return nil, &refusal{err: err}
}

// answerError is the zone's own message, with its class.
func answerError(httpStatus string, content []byte) error {
	var answer struct {
		Code    uint32 `json:"code"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal(content, &answer); err != nil || answer.Message == "" {
		return fmt.Errorf("the zone answered %q", httpStatus)
	}
	return wire.Error(status.Error(codes.Code(answer.Code), answer.Message))
}
