echo secret > config/.env
