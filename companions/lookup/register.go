package lookup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/backoff"
)

// Registration is an endpoint of an app's own, or values of one of its instances.
type Registration struct {
	// The app's name, or NAME.app for another service of the app.
	Service string
	// An instance's id adds Values to that instance; the rest is then empty.
	ID      string
	Address string
	Port    int
	Ports   map[string]int
	// Zero is 100.
	Weight int
	Values map[string]string
	// How long the registry keeps it without a renewal; default 30s.
	Lease time.Duration
}

// Register registers an endpoint and renews it until ctx ends or the client is closed; then it is removed. It returns after
// the first registration: a refusal at once, while it waits for a registry that is away. It needs the app's key in the
// registry's address.
func (c *Client) Register(ctx context.Context, registration Registration) error {
	if registration.Lease == 0 {
		registration.Lease = 30 * time.Second
	}
	path := "/v1/registry/services/" + url.PathEscape(registration.Service) + "/endpoints/" + url.PathEscape(registration.ID)
	first := make(chan error, 1)
	c.group.Go(func() {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(c.ctx, cancel)()
		c.keep(ctx, path, registration, first)
	})
	return <-first
}

// renew repeats the registration.
func (c *Client) keep(ctx context.Context, path string, registration Registration, first chan<- error) {
	body := map[string]any{
		"address": registration.Address, "port": registration.Port, "ports": registration.Ports, "weight": registration.Weight,
		"values": registration.Values, "lease": fmt.Sprintf("%.3fs", registration.Lease.Seconds()),
	}
	registered := false
	for failures := 0; ; {
		err := c.once(ctx, registration.Lease, request{method: http.MethodPut, path: path, body: body})
		pause := registration.Lease / 3
		switch {
		case err == nil:
			failures = 0
			if !registered {
				registered = true
				first <- nil
			}
		case !registered && (ctx.Err() != nil || !errors.Is(err, errdefs.ErrUnavailable)):
			first <- err
			return
		default:
			failures++
			pause = min(retry.After(failures), pause)
		}
		if backoff.Sleep(ctx, pause) != nil {
			break
		}
	}
	if !registered {
		first <- context.Cause(ctx)
		return
	}
	// The removal outlives the cancelled context for a moment.
	_ = c.once(context.WithoutCancel(ctx), time.Second, request{method: http.MethodDelete, path: path})
}

func (c *Client) once(ctx context.Context, limit time.Duration, r request) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return c.call(ctx, r)
}

// request is one exchange with the registry.
type request struct {
	method, path string
	// Written and read as JSON; nil is none.
	body, answer any
}

// call makes one exchange. A refusal has the class of its answer; a registry that does not answer is errdefs.ErrUnavailable.
func (c *Client) call(ctx context.Context, r request) error {
	var body io.Reader
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return fmt.Errorf("ask the registry: %w", err)
		}
		body = bytes.NewReader(text)
	}
	address := *c.base
	address.User = nil
	exchange, err := http.NewRequestWithContext(ctx, r.method, strings.TrimSuffix(address.String(), "/")+r.path, body)
	if err != nil {
		return fmt.Errorf("ask the registry: %w", err)
	}
	// The key is sent only where it is needed.
	if key, found := c.base.User.Password(); found && r.method != http.MethodGet {
		exchange.SetBasicAuth(c.base.User.Username(), key)
	}
	answer, err := c.http.Do(exchange)
	if err != nil {
		return fmt.Errorf("ask the registry: %w: %w", err, errdefs.ErrUnavailable)
	}
	defer drain(answer.Body)
	if answer.StatusCode != http.StatusOK {
		return refusal(answer)
	}
	if r.answer == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, 16<<20)).Decode(r.answer); err != nil {
		return fmt.Errorf("read the registry's answer: %w: %w", err, errdefs.ErrUnavailable)
	}
	return nil
}

var classes = map[int]error{
	http.StatusBadRequest:      errdefs.ErrInvalidArgument,
	http.StatusUnauthorized:    errdefs.ErrUnauthenticated,
	http.StatusForbidden:       errdefs.ErrPermissionDenied,
	http.StatusNotFound:        errdefs.ErrNotFound,
	http.StatusTooManyRequests: errdefs.ErrResourceExhausted,
	http.StatusNotImplemented:  errdefs.ErrNotImplemented,
}

// refusal is the registry's own message.
func refusal(answer *http.Response) error {
	var body struct {
		Message string `json:"message"`
	}
	_ = json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&body)
	if body.Message == "" {
		body.Message = "the registry answered " + answer.Status
	}
	class, known := classes[answer.StatusCode]
	if !known {
		class = errdefs.ErrUnavailable
	}
	return fmt.Errorf("%s: %w", body.Message, class)
}
