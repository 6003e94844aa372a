package endpoints

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	host = "web.example.test"
	rate = 500
)

// load asks through nginx at a constant rate, whether or not the answers keep up.
type load struct {
	client *http.Client
	cancel context.CancelFunc
	ticker sync.WaitGroup
	asked  sync.WaitGroup

	mu       sync.Mutex
	total    int
	failed   []string
	versions map[string]int
}

func newLoad(front string) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel, versions: map[string]int{}}
	l.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: 128, MaxConnsPerHost: 512,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", front)
		},
	}}
	l.ticker.Go(func() {
		begin := time.Now()
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		for sent := 0; ; {
			// A late tick is made up for: the rate is constant over any second.
			for due := int(time.Since(begin) * rate / time.Second); sent < due; sent++ {
				l.asked.Go(l.ask)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return l
}

func (l *load) ask() {
	version, err := l.get()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	if err != nil {
		l.failed = append(l.failed, time.Now().Format("15:04:05.000 ")+err.Error())
		return
	}
	l.versions[version]++
}

// get asks once and tells the version that answered.
func (l *load) get() (string, error) {
	answer, err := l.client.Get("http://" + host + "/")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %.60s", answer.Status, text)
	}
	_, rest, _ := strings.Cut(string(text), "version: ")
	version, _, _ := strings.Cut(rest, "\n")
	return version, nil
}

// count is what was asked since the last call, once everything that was asked is answered or has failed.
func (l *load) count() (total int, failed []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	total, failed = l.total, l.failed
	l.total, l.failed = 0, nil
	return total, failed
}

func (l *load) stop() {
	l.cancel()
	l.ticker.Wait()
	l.asked.Wait()
	l.client.CloseIdleConnections()
}
