// Package lookup finds the instances of a service of the zone, and registers endpoints of an app's own. Answers come from
// memory: the first look-up of a service starts a watch that keeps the answer current. While the registry is away, the last
// known answer is returned.
//
//	client, err := lookup.New(lookup.Config{}) // the registry in MAMMOTH_REGISTRY
//	defer client.Close()
//	endpoint, err := client.Pick(ctx, "web") // one of them by weight
//	http.Get("http://" + endpoint.HostPort() + "/")
package lookup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/mammoth-os/mammoth/internal/backoff"
)

// Variable is the environment variable of every instance with the registry's address: http://APP:KEY@host:port.
const Variable = "MAMMOTH_REGISTRY"

// Config is the configuration of a Client.
type Config struct {
	// The registry's address; default that in Variable. Its key is needed only to register endpoints.
	Registry string
	// Default http.DefaultTransport.
	Transport http.RoundTripper
}

// Endpoint is one address of a service.
type Endpoint struct {
	// The instance's id.
	ID      string `json:"id"`
	Address string `json:"address"`
	// The first port's.
	Port int `json:"port"`
	// Share of traffic among the service's endpoints; 100 is the normal one, 0 is none.
	Weight int `json:"weight"`
	// "HEALTHY", or "UNHEALTHY": to be used only if there is no other.
	State   string            `json:"state"`
	Ports   map[string]int    `json:"ports"`
	Version int               `json:"version"`
	Values  map[string]string `json:"values"`
	// Registered by the app itself.
	AppOwned bool `json:"appOwned"`
}

// HostPort is the address and first port, in the form of net.Dial.
func (e Endpoint) HostPort() string { return net.JoinHostPort(e.Address, strconv.Itoa(e.Port)) }

// Service is every endpoint of a service.
type Service struct {
	Name      string     `json:"name"`
	Endpoints []Endpoint `json:"endpoints"`
	// Rises with every change.
	Index int64 `json:"index,string"`
	// When the registry stopped answering; zero while it answers. The endpoints are the last known ones.
	StaleSince time.Time `json:"-"`
}

// Client looks services up. Its methods are safe for concurrent use.
type Client struct {
	base *url.URL
	http *http.Client
	ctx  context.Context
	end  context.CancelFunc

	group sync.WaitGroup
	mu    sync.Mutex
	// Services that are being watched, by name.
	watched map[string]*watched
}

// watched is one service that is kept current.
type watched struct {
	// known is false before the registry has answered.
	known   bool
	service Service
	exists  bool
	// The last failure, until the registry answers.
	err error
	// Closed and replaced with every change.
	changed chan struct{}
}

// New returns a client. It connects at its first use.
func New(config Config) (*Client, error) {
	if config.Registry == "" {
		config.Registry = os.Getenv(Variable)
	}
	if config.Registry == "" {
		return nil, fmt.Errorf("the registry's address is unknown: %s is not set: %w", Variable, errdefs.ErrInvalidArgument)
	}
	base, err := url.Parse(config.Registry)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("the registry must be http://host:port: %w", errdefs.ErrInvalidArgument)
	}
	transport := config.Transport
	if transport == nil {
		transport = http.DefaultTransport
	}
	c := &Client{base: base, http: &http.Client{Transport: transport}, watched: map[string]*watched{}}
	c.ctx, c.end = context.WithCancel(context.Background())
	return c, nil
}

// Close ends every watch and registration, and waits for them.
func (c *Client) Close() {
	c.end()
	c.group.Wait()
}

// Lookup returns a service: the first time as soon as the registry answers, then at once. A service that does not exist is
// errdefs.ErrNotFound; a registry that has never answered is errdefs.ErrUnavailable when ctx ends.
func (c *Client) Lookup(ctx context.Context, name string) (Service, error) {
	w := c.watch(name)
	for {
		c.mu.Lock()
		known, service, exists, failure, changed := w.known, w.service, w.exists, w.err, w.changed
		c.mu.Unlock()
		if known {
			if !exists {
				return service, fmt.Errorf("no service is named %q: %w", name, errdefs.ErrNotFound)
			}
			return service, nil
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
			return Service{}, errClosed
		case <-ctx.Done():
			return Service{}, fmt.Errorf("look up %q: %w", name, errors.Join(context.Cause(ctx), failure, errdefs.ErrUnavailable))
		}
	}
}

var errClosed = fmt.Errorf("the look-up client is closed: %w", errdefs.ErrUnavailable)

// Pick returns a random endpoint of a service, by weight: a healthy one if there is any.
func (c *Client) Pick(ctx context.Context, name string) (Endpoint, error) {
	service, err := c.Lookup(ctx, name)
	if err != nil {
		return Endpoint{}, err
	}
	for _, state := range []string{"HEALTHY", "UNHEALTHY"} {
		sum := 0
		for _, endpoint := range service.Endpoints {
			if endpoint.State == state {
				sum += max(endpoint.Weight, 0)
			}
		}
		if sum == 0 {
			continue
		}
		at := rand.IntN(sum)
		for _, endpoint := range service.Endpoints {
			if endpoint.State != state {
				continue
			}
			if at -= max(endpoint.Weight, 0); at < 0 {
				return endpoint, nil
			}
		}
	}
	return Endpoint{}, fmt.Errorf("%q has no instance at present: %w", name, errdefs.ErrUnavailable)
}

// Watch calls changed with the service now and after each change, one call at a time, until ctx ends or changed returns
// false. A service that does not exist has no endpoints. Changes during a call are combined.
func (c *Client) Watch(ctx context.Context, name string, changed func(Service) bool) error {
	w := c.watch(name)
	var last int64 = -1
	for {
		c.mu.Lock()
		known, service, next := w.known, w.service, w.changed
		c.mu.Unlock()
		if known && service.Index != last {
			last = service.Index
			if !changed(service) {
				return nil
			}
			continue
		}
		select {
		case <-next:
		case <-c.ctx.Done():
			return errClosed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// watch returns the entry of a service, and starts to keep it current at the first call.
func (c *Client) watch(name string) *watched {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.watched[name]
	if w == nil {
		w = &watched{service: Service{Name: name}, changed: make(chan struct{})}
		c.watched[name] = w
		if c.ctx.Err() == nil {
			c.group.Go(func() { c.follow(name, w) })
		}
	}
	return w
}

var retry = backoff.Policy{Min: 50 * time.Millisecond, Max: 2 * time.Second}

// follow keeps a service current until the client is closed.
func (c *Client) follow(name string, w *watched) {
	for failures := 0; c.ctx.Err() == nil; {
		c.mu.Lock()
		index := w.service.Index
		c.mu.Unlock()
		service, exists, err := c.fetch(name, index)
		if c.ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		switch {
		case err != nil:
			w.err = err
			if w.known && w.service.StaleSince.IsZero() {
				w.service.StaleSince = time.Now()
			}
		case exists:
			w.known, w.exists, w.err, w.service = true, true, nil, service
		default:
			// Its last index stays, so that its return is noticed.
			w.known, w.exists, w.err = true, false, nil
			w.service = Service{Name: name, Index: index}
		}
		close(w.changed)
		w.changed = make(chan struct{})
		c.mu.Unlock()
		switch {
		case err != nil:
			failures++
			_ = backoff.Sleep(c.ctx, retry.After(failures))
		case !exists && index == 0:
			// Without an index above zero the registry does not wait.
			failures = 0
			_ = backoff.Sleep(c.ctx, time.Second)
		default:
			failures = 0
		}
	}
}

// fetch asks the registry, which answers once the service is newer than index, or after a while.
func (c *Client) fetch(name string, index int64) (service Service, exists bool, err error) {
	ctx, cancel := context.WithTimeout(c.ctx, time.Minute)
	defer cancel()
	path := "/v1/registry/services/" + url.PathEscape(name)
	if index > 0 {
		path += "?wait=30s&index=" + strconv.FormatInt(index, 10)
	}
	err = c.call(ctx, request{method: http.MethodGet, path: path, answer: &service})
	if errors.Is(err, errdefs.ErrNotFound) {
		return Service{}, false, nil
	}
	return service, err == nil, err
}

// drain reads the rest of an answer, so that its connection can be reused.
func drain(body io.ReadCloser) {
	_, _ = io.Copy(io.Discard, io.LimitReader(body, 64<<10))
	_ = body.Close()
}
