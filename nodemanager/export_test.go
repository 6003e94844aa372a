package nodemanager

// MetricsAddress is the host:port of /metrics.
func (nm *NodeManager) MetricsAddress() string { return nm.metrics.Addr().String() }
