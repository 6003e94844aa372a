package zk

// Session is the session of the newest connection.
func (c *Client) Session() int64 { return c.conn.SessionID() }
