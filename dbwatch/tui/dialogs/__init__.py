"""The dialogs: what will be done is shown, then confirmed; each is a modal screen that follows the frames."""
