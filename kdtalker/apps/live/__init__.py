"""Serve live faces: WebSocket, WebRTC, the Live tab, and pushes to files, pipes and servers."""
