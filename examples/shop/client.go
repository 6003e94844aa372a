package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/mammoth-os/mammoth/companions/lookup"
)

// client asks the cache, wherever it is at present.
type client struct {
	service string
	lookup  *lookup.Client
	http    http.Client
}

// findCache looks the cache up until ctx ends.
func findCache(ctx context.Context) (*client, error) {
	found, err := lookup.New(lookup.Config{})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, found.Close)
	return &client{service: "cache." + os.Getenv("MAMMOTH_APP"), lookup: found, http: http.Client{Timeout: 2 * time.Second}}, nil
}

// ask sends a request to the cache and returns the answer's status and text.
func (c *client) ask(ctx context.Context, method, path, body string) (status int, text string, err error) {
	cache, err := c.lookup.Pick(ctx, c.service)
	if err != nil {
		return 0, "", fmt.Errorf("find %s: %w", c.service, err)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+cache.HostPort()+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	return answer.StatusCode, string(content), err
}
